"""Analysis of results: statistics, decisions, verdicts."""
