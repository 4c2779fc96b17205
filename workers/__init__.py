"""The workers: they claim jobs, train them in child processes and relay what the children measure. Torch lives here."""
