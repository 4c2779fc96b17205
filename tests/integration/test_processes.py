"""Children of the forkserver, in a program that starts the forkserver as a worker does."""

import pytest

from tests.programs import run_program
from tests.thoroughness import replicates

PROGRAM = """
import json, os, signal, sys
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from workers.__main__ import scrub, start_forkserver
from workers.entry import describe_machine
from workers.process import Process, _REAPING
from tests.loaded import send_has_default
from tests.waiting import until

def clean_exit(_):
    process = Process(describe_machine)
    while not process.messages(1.0)[1]:
        pass
    return process.reap()

scrub()
start_forkserver()
with ThreadPoolExecutor(8) as pool:
    statuses = list(pool.map(clean_exit, range(int(sys.argv[1]))))
killed = Process(Connection.recv)  # waits for a message that is never sent
os.kill(killed.pid, signal.SIGKILL)
asked = Process(send_has_default, signal.SIGUSR1)
asked.pipe.poll(60)
has_default = asked.pipe.recv()
server = forkserver._forkserver._forkserver_pid
environment = Path(f"/proc/{server}/environ").read_text().split("\\0")

running = Process(Connection.recv)
os.kill(server, signal.SIGSTOP)  # busy, as when it imports the engine
with ThreadPoolExecutor(2) as pool:
    starting = pool.submit(Process, Connection.recv)
    until(_REAPING.locked)
    killing = pool.submit(running.kill)
    finished, _ = wait([killing], 10)
    os.kill(server, signal.SIGCONT)
    starting.result().kill()
print(json.dumps({
    "clean": statuses, "killed": killed.reap(), "forkserver": environment, "has default": has_default,
    "killed while busy": [len(finished), running.reap()],
}))
"""


PROCESSES = replicates(160)


@pytest.fixture(scope="module")
def report():
    return run_program(PROGRAM, str(PROCESSES), KOTRAIN_BROKER_URL="SECRET", AWS_SECRET_ACCESS_KEY="SECRET")


def test_exit_statuses_do_not_race(report):
    """Without the lock around start and join, a third of the exit statuses read as 255."""
    assert report["clean"] == [0] * PROCESSES


def test_kill_is_reported_as_its_signal(report):
    assert report["killed"] == -9


def test_kill_does_not_wait_for_a_busy_forkserver(report):
    assert report["killed while busy"] == [1, -9]


def test_children_do_not_inherit_the_handler_that_imports_the_engine(report):
    assert report["has default"]


def test_forkserver_inherits_no_secrets_and_one_thread(report):
    assert "OMP_NUM_THREADS=1" in report["forkserver"]
    assert not any("SECRET" in variable for variable in report["forkserver"])
