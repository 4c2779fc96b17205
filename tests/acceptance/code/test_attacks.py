"""Hostile uploads: each ends its own job with a sentence, and nothing else notices."""

import subprocess
from pathlib import Path

import pytest

from service.code import isolation
from service.config import settings
from tests.acceptance.code.attacks import ATTACKS, ENDLESS, MODULE
from tests.acceptance.lab import JOB, Lab, running_worker

OWN = Path(__file__).with_name("own.py")
SHORT = JOB | {"budget": {"steps": 5}}


@pytest.fixture(scope="module")
def worker(schema):
    with running_worker() as worker:
        yield worker


def upload(api, name: str, source: str) -> str:
    answer = api.post(f"/v1/code?kind=optimizer&name={name}", content=source.encode())
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["name"]


def test_this_machine_can_isolate():
    assert isolation.missing() is None


def test_hostile_files_end_their_job_alone(api, worker, servers, subtests):
    lab = Lab(api)
    known = {
        "home": str(settings().home),
        "worker": str(worker.pid),
        "broker": servers.broker_url.partition("@")[2].partition("?")[0],
    }
    (settings().home / "key").write_text("secret")
    (settings().data / "own").mkdir(parents=True, exist_ok=True)
    jobs = {}
    for number, (name, attack) in enumerate(ATTACKS.items()):
        source = attack.source
        for word, value in known.items():
            source = source.replace(f"{{{word}}}", value)
        jobs[name] = lab.submit(SHORT, optimizer=upload(api, f"attack_{number}", source))
    for name, job_id in jobs.items():
        with subtests.test(name):
            job = lab.ended(job_id)
            assert job["status"] == "failed", job["message"]
            assert ATTACKS[name].message in job["message"]
    assert worker.is_running
    assert lab.ended(lab.submit(SHORT, optimizer=upload(api, "own", OWN.read_text())))["status"] == "succeeded"
    assert not (settings().home / "pwned").exists()
    assert subprocess.run(["pgrep", "-f", "kotrain-stray"], capture_output=True).stdout == b""
    assert len(worker.log()) < 5_000_000
    assert not [path for path in (settings().home / "files").rglob("*") if path.is_file()]


def test_endless_imports_end_with_their_job_and_keep_no_other_one_waiting(api, worker):
    lab = Lab(api)
    for number in range(3):  # more than the worker has slots; their conformance tests do not end either
        upload(api, "endless", MODULE.format(attempt=f"x = {number}\n{ENDLESS}"))
    assert lab.ended(lab.submit(SHORT))["status"] == "succeeded"
    job_id = lab.submit(SHORT, optimizer=upload(api, "endless", MODULE.format(attempt=ENDLESS)), time_limit_seconds=1.0)
    job = lab.ended(job_id)
    assert (job["status"], job["reason"]) == ("failed", "timed_out")
