"""Live streams: what happens to jobs and comparisons, as Server-Sent Events that resume without gap or repeat.

A stream remembers nothing but its cursor, which is also the id of what it told last. It is woken (`hub`), reads from
the database what came after the cursor (`of_job`, `of_many`), tells it (`stream`), and waits again.
"""

from service.streams.event_feed import AllFeed, ComparisonFeed
from service.streams.feed import Feed
from service.streams.hub import Hub
from service.streams.job_feed import JobFeed
from service.streams.response import MEDIA_TYPE, open_stream

__all__ = ["MEDIA_TYPE", "AllFeed", "ComparisonFeed", "Feed", "Hub", "JobFeed", "open_stream"]
