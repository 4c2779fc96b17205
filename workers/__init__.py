"""Worker processes: they claim jobs, train them in child processes and store their metrics. The only users of torch."""
