"""What the forkserver imports once, so that every child starts with torch loaded (25 to 33 ms instead of seconds).

CUDA is not touched here: a process that has done so cannot be forked. No tensor operation runs here either: one that
uses several threads leaves locks behind on which every child hangs.
"""

from workers import child
from workers import lifetime as mortality

mortality.die_with_parent()

__all__ = ["child"]
