"""Data sets: the catalog's files and uploads."""
