"""Modules that the forkserver and a worker have imported when the worker is ready, and afterwards."""

from tests.programs import run_program

PROGRAM = """
import json, sys
from workers.__main__ import scrub, start_forkserver
from workers.process import Process, describe_machine, preload_engine
from tests.loaded import HEAVY, send_loaded

def loaded():
    process, received, closed = Process(send_loaded), [], False
    while not closed:
        messages, closed = process.messages(1.0)
        received += messages
    assert process.reap() == 0
    return received[0]

scrub()
start_forkserver()
describe_machine()
ready = loaded()
preload_engine()
after = loaded()
while after == ready:
    after = loaded()
import workers.tasks
worker = [name for name in (*HEAVY, "numpy", "alembic", "service.comparisons.lifecycle") if name in sys.modules]
print(json.dumps({"ready": ready, "after": after, "worker": worker}))
"""


def test_worker_is_ready_with_torch_alone_and_then_loads_the_engine():
    loaded = run_program(PROGRAM)
    assert loaded["ready"] == ["torch"]
    assert {"torch", "torch._dynamo", "torchvision", "sklearn", "pytorch_optimizer", "workers.child"} <= {
        *loaded["after"]
    }
    assert loaded["worker"] == []
