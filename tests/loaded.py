"""Entry point of a child of the forkserver: which of some modules it has without importing them."""

import sys
from multiprocessing.connection import Connection

HEAVY = ("torch", "torch._dynamo", "torchvision", "sklearn", "scipy", "pytorch_optimizer", "workers.child")


def send_loaded(pipe: Connection) -> None:
    """Send those of `HEAVY` that are loaded."""
    pipe.send([name for name in HEAVY if name in sys.modules])
    pipe.close()
