"""Entry point of a child of the forkserver that reports which heavy modules it inherited."""

import sys
from multiprocessing.connection import Connection

HEAVY = ("torch", "torch._dynamo", "torchvision", "sklearn", "scipy", "pytorch_optimizer", "workers.child")


def send_loaded(pipe: Connection) -> None:
    """Send the names in `HEAVY` that are loaded."""
    pipe.send([name for name in HEAVY if name in sys.modules])
    pipe.close()
