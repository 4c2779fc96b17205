"""A remote store whose transfers wait at a gate: importing this module registers `slow://` with fsspec."""

import threading

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class SlowFiles(MemoryFileSystem):
    """Remote files whose transfers wait until `gate` is set."""

    protocol = "slow"
    cachable = False
    gate = threading.Event()
    error: Exception | None = None
    transfers = 0
    progress = None

    def _wait(self, progress):
        type(self).transfers += 1
        type(self).progress = progress
        self.gate.wait(60)
        if self.error is not None:
            raise self.error

    def put_file(self, *args, **kwargs):
        self._wait(kwargs["callback"])
        super().put_file(*args, **kwargs)

    def get_file(self, *args, **kwargs):
        self._wait(kwargs["callback"])
        super().get_file(*args, **kwargs)


fsspec.register_implementation("slow", SlowFiles, clobber=True)
