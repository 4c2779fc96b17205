"""Server-sent events of jobs and comparisons. Streams resume without gaps or repetitions.

The only state of a stream is its cursor, which is also the id of the last event sent. `hub` wakes streams; `job_feed`
or `event_feed` reads the events after the cursor from the database; `response` sends them.
"""
