"""The vocabulary: catalog, training specs, metrics."""
