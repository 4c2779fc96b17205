"""From a request to the runs to make."""
