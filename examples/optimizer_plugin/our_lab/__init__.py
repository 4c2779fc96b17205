"""Optimizers of our lab."""
