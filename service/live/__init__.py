"""Live streams: what happens to jobs and comparisons, as Server-Sent Events that resume without gap or repeat.

A stream remembers nothing but its cursor, which is also the id of what it told last. It is woken (`hub`), reads from
the database what came after the cursor (`of_job`, `of_many`), tells it (`stream`), and waits again.
"""

from service.live.delta import Feed
from service.live.hub import Hub
from service.live.of_job import JobFeed
from service.live.of_many import AllFeed, ComparisonFeed
from service.live.stream import MEDIA_TYPE, open_stream

__all__ = ["MEDIA_TYPE", "AllFeed", "ComparisonFeed", "Feed", "Hub", "JobFeed", "open_stream"]
