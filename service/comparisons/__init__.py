"""Comparisons of optimizers: from the request to the verdict."""
