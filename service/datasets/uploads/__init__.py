"""Users' own data: files that come in over HTTP, are checked as what strangers send, and become data sets.

`parsing` reads a file by its format into `records`; `registered` stores, lists and removes the sets. Nothing here
unpickles, and no name from within a file becomes a path.
"""
