"""A supervisor whose store of checkpoints hangs."""

import pytest

from tests.programs import run_forked

HANGING_STORE = """
import json, logging, threading, time
from types import SimpleNamespace
from uuid import uuid4
from service.jobs.claims import Claim
from service.jobs.heartbeats import Instruction
from service.jobs.checkpoints import name_of
from service.storage.files import store
from tests.slow_files import SlowFiles
from workers import supervisor
from workers.__main__ import start_forkserver
from workers.process import Process
from workers.heartbeat import AttemptState
from tests import misbehaving

logging.getLogger("workers").addHandler(logging.NullHandler())
start_forkserver()
def watched(event, stays):
    claim = Claim(uuid4(), 1, {}, None, None, 0)
    path = store().place(name_of(claim.job_id, 1, "1.pt"))
    state, outcome = AttemptState(claim), supervisor.Outcome(memory_bytes=2**40)
    host = SimpleNamespace(draining=threading.Event())
    SlowFiles.gate.clear()
    process = Process(misbehaving.save, path, stays)
    threading.Timer(1, event, (state, host)).start()
    began = time.monotonic()
    supervisor._Monitor(process, claim, host, state, outcome, None).run()
    took = time.monotonic() - began
    SlowFiles.gate.set()
    steps = [checkpoint.step for batch in state.seal() for checkpoint in batch.checkpoints]
    return [outcome.stop and outcome.stop.name, took, steps]

def cancel(state, host):
    state.instruction = Instruction.CANCEL

print(json.dumps([
    watched(cancel, True), watched(cancel, False), watched(lambda _, host: host.draining.set(), True),
    watched(lambda *_: SlowFiles.gate.set(), False),
]))
"""
DRAIN_SECONDS = 2


@pytest.fixture(scope="module")
def hanging_store_endings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    limits = {"KOTRAIN_STALL_SECONDS": "60", "KOTRAIN_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    files = {"KOTRAIN_FILES": "slow://kotrain", "KOTRAIN_HOME": str(folder)}
    return run_forked(HANGING_STORE, **limits, **files)


@pytest.mark.parametrize("which", [0, 1], ids=["while it trains", "after its process has died"])
def test_cancel_does_not_wait_for_a_hanging_store(hanging_store_endings, which):
    stop, seconds, steps = hanging_store_endings[which]
    assert (stop, steps) == ("CANCEL" if which == 0 else None, [])
    assert seconds < 30


def test_shutdown_waits_for_a_hanging_store_as_long_as_for_a_job(hanging_store_endings):
    stop, seconds, steps = hanging_store_endings[2]
    assert (stop, steps) == ("DRAIN", [])
    assert DRAIN_SECONDS <= seconds < 30


def test_last_checkpoint_is_awaited(hanging_store_endings):
    assert hanging_store_endings[3][::2] == [None, [1]]
