"""Read uploaded files, which may be hostile: nothing here unpickles, and no name inside a file becomes a path.

`reading` chooses the reader by format, `records` is what every reader returns, `upload` receives the bytes.
"""
