"""Children of the forkserver, in a program that starts it as a worker does."""

import pytest

from tests.programs import run_program
from tests.thoroughness import replicates

PROGRAM = """
import json, os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from workers.__main__ import scrub, start_forkserver
from workers.entry import describe_machine
from workers.process import Process

def clean_exit(_):
    process = Process(describe_machine)
    while not process.messages(1.0)[1]:
        pass
    return process.reap()

scrub()
start_forkserver()
with ThreadPoolExecutor(8) as pool:
    statuses = list(pool.map(clean_exit, range(int(sys.argv[1]))))
killed = Process(Connection.recv)  # and nothing comes
os.kill(killed.pid, signal.SIGKILL)
environment = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/environ").read_text().split("\\0")
print(json.dumps({
    "clean": statuses, "killed": killed.reap(), "forkserver": environment,
}))
"""


PROCESSES = replicates(160)


@pytest.fixture(scope="module")
def found():
    return run_program(PROGRAM, str(PROCESSES), KOTRAIN_BROKER_URL="SECRET", AWS_SECRET_ACCESS_KEY="SECRET")


def test_exit_statuses_do_not_race(found):
    """Without the lock around start and join, a third of them read as 255."""
    assert found["clean"] == [0] * PROCESSES


def test_kill_is_reported_as_a_kill(found):
    assert found["killed"] == -9


def test_the_forkserver_inherits_no_secret_and_one_thread(found):
    assert "OMP_NUM_THREADS=1" in found["forkserver"]
    assert not any("SECRET" in variable for variable in found["forkserver"])
