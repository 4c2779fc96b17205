"""Server-Sent Events of jobs and comparisons, which resume without gap or repetition.

A stream keeps no state but its cursor, which is also the id of the last event it sent. `hub` wakes it; `job_feed` or
`event_feed` reads what follows the cursor from the database; `response` sends it.
"""
