"""Modules that the forkserver and a worker have imported when the worker is ready, and afterwards; failing imports."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests import forked
from tests.acceptance.lab import FAST, Lab, alive, children, running_worker
from tests.programs import run_program
from tests.waiting import until
from workers import lifetime

PROGRAM = """
import json, sys
from workers.__main__ import scrub, start_forkserver
from workers.process import Process, check_engine, describe_machine, preload_engine
from tests.loaded import HEAVY, send_loaded

def loaded():
    process, received, closed = Process(send_loaded), [], False
    while not closed:
        messages, closed = process.messages(1.0)
        received += messages
    assert process.reap() == 0
    return received[0].text.split(",")

scrub()
start_forkserver()
machine = describe_machine()
ready = loaded()
check_engine(preload_engine())
after = loaded()
import workers.tasks
worker = [name for name in (*HEAVY, "numpy", "alembic", "service.comparisons.lifecycle") if name in sys.modules]
print(json.dumps({"machine": [machine.torch, machine.gpus], "ready": ready, "after": after, "worker": worker}))
"""
BROKEN = "operator torchvision::nms does not exist"


def path_to(folder, module, *lines):
    """Variables of a process that imports these lines as the module."""
    (folder / f"{module}.py").write_text("\n".join(lines))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def test_only_the_forkserver_loads_torch_and_then_the_engine():
    loaded = run_program(PROGRAM, CUDA_VISIBLE_DEVICES="")
    assert loaded["machine"] == [torch.__version__, []]
    assert loaded["ready"] == ["torch"]
    assert {"torch", "torch._dynamo", "torchvision", "sklearn", "pytorch_optimizer", "workers.child"} <= {
        *loaded["after"]
    }
    assert loaded["worker"] == []


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_worker_without_an_engine_returns_its_job_to_the_queue_and_ends(api, tmp_path, error):
    lab = Lab(api)
    job_id = lab.submit()
    gate = tmp_path / "gate"
    wait = f"import fcntl\nwith open({str(gate)!r}) as gate: fcntl.flock(gate, fcntl.LOCK_SH)"
    stub = path_to(tmp_path, "torchvision", wait, f"raise {error}({BROKEN!r})")
    with gate.open("w") as closed:
        fcntl.flock(closed, fcntl.LOCK_EX)
        with running_worker(FAST | stub, forked=False) as worker:
            until(lambda: lab.show(job_id)["status"] == "running")
            fcntl.flock(closed, fcntl.LOCK_UN)
            status, log, worker_id = worker.process.wait(100), worker.log(), worker.id
    reason = f"the training engine cannot be imported: {error}: {BROKEN}"
    assert status == 1
    assert log.splitlines()[-1].endswith(f" ERROR workers.tasks: {reason}")
    assert "from torchvision" in log
    assert "multiprocessing/forkserver.py" not in log, "the forkserver ended"
    job = lab.show(job_id)
    assert (job["status"], job["failures"], job["attempt"]) == ("queued", 0, 1)
    assert job["message"] == f"worker {worker_id} cannot train: {reason}"


SMALL_MACHINE = """
import sys
from service.jobs import memory
from workers import tasks
from workers.__main__ import start_forkserver
memory.machine_bytes = lambda: 2**30
start_forkserver()
sys.exit(tasks.serve())
"""


def test_worker_with_too_many_slots_does_not_start(schema):
    worker = forked.run("tests.programs", SMALL_MACHINE, env=os.environ | {"KOTRAIN_SLOTS": "2"})
    assert worker.returncode == 1
    assert worker.stderr.splitlines()[-1].endswith("at least 256 MiB; set KOTRAIN_SLOTS to at most 1")


def test_forkserver_dies_with_a_worker_that_is_killed_while_it_imports_torch(tmp_path):
    gate, reached = tmp_path / "gate", tmp_path / "reached"
    wait = f"open({str(reached)!r}, 'w').close()\nwith open({str(gate)!r}) as gate: fcntl.flock(gate, fcntl.LOCK_SH)"
    environment = os.environ | path_to(tmp_path, "torch", "import fcntl", wait)
    with gate.open("w") as closed:
        fcntl.flock(closed, fcntl.LOCK_EX)
        worker = subprocess.Popen([sys.executable, "-P", "-m", "workers"], env=environment)
        until(reached.exists)
        descendants = children(worker.pid)
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
        until(lambda: not any(map(alive, descendants)))


def test_forkserver_whose_worker_is_dead_already_ends_before_it_imports_torch():
    environment = os.environ | {lifetime.PARENT: str(os.getppid())}  # not the parent of the process below
    process = subprocess.run([sys.executable, "-c", "import workers.preload"], env=environment, check=False)
    assert process.returncode == -signal.SIGKILL


def test_worker_without_torch_does_not_start(tmp_path):
    environment = os.environ | path_to(tmp_path, "torch", f"raise OSError({BROKEN!r})")
    command = [sys.executable, "-P", "-m", "workers"]
    worker = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert worker.returncode == 1
    assert "import torch\n" in worker.stderr
    reason = f"the training engine cannot be imported: OSError: {BROKEN}"
    assert worker.stderr.splitlines()[-1].endswith(f" ERROR workers.tasks: {reason}")
