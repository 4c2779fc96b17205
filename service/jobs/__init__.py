"""Jobs: submission, claims, outcomes."""
