"""Design of a comparison: request, plan and schedule of its runs."""
