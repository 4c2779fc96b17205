"""Entry points of children of the forkserver that report what they inherited."""

import signal
import sys
from multiprocessing.connection import Connection

from workers import messages

HEAVY = ("torch", "torch._dynamo", "torchvision", "sklearn", "scipy", "pytorch_optimizer", "workers.child")


def send_loaded(pipe: Connection) -> None:
    """Send the names in `HEAVY` that are loaded."""
    names = ",".join(name for name in HEAVY if name in sys.modules)
    messages.send(pipe, messages.Note(names))
    pipe.close()


def send_has_default(pipe: Connection, number: int) -> None:
    """Send whether a signal has its default effect."""
    pipe.send(signal.getsignal(number) is signal.SIG_DFL)
    pipe.close()
