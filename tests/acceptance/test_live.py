"""Event streams of a real API process and a real worker while each of them is killed."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator

import httpx2
import pytest

from service.operations import stack
from tests.acceptance.lab import FAST, JOB, LONG, Lab, running_worker
from tests.forked import Forked
from tests.streams import Listener, Page
from tests.waiting import until

LISTENERS = 200


@pytest.fixture(scope="module")
def worker(schema):
    """One worker for these tests."""
    with running_worker(FAST) as worker:
        yield worker


class Api:
    """API processes, one after another, behind one address."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.key = listener, ""
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.client = httpx2.Client(base_url=self.url, trust_env=False, timeout=30)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (until `end`)
        self.start()

    def start(self) -> None:
        descriptor = self.listener.fileno()
        self.process = Forked(
            *("service.commands", "api", "--fd", str(descriptor)),
            env=os.environ | {"KOTRAIN_MAX_STREAMS_PER_USER": str(LISTENERS)},
            stdout=self._log,
            stderr=self._log,
            pass_fds=(descriptor,),
        )
        assert self.client.get("/healthz").is_success

    def sign_in(self, key: str) -> None:
        self.key = key
        self.client.headers["Authorization"] = f"Bearer {key}"

    def listen(self, job_id: str, page: Page | None = None) -> Listener:
        return Listener(f"{self.url}/v1/jobs/{job_id}/events", self.key, page or Page())

    def log(self) -> str:
        return os.pread(self._log.fileno(), 10**7, 0).decode()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.client.close()
        self._log.close()


@pytest.fixture(scope="module")
def api_process(schema) -> Iterator[Api]:
    with stack.listen("127.0.0.1", 0) as listener:
        api = Api(listener)
        yield api
        api.end()


@pytest.fixture
def served(api_process, key) -> Api:
    """The API, called with the key of this test's user."""
    api_process.sign_in(key)
    return api_process


@pytest.fixture
def lab(served, worker):
    return Lab(served.client)


def stored(lab, job_id) -> dict:
    return {
        name: dict(zip(curve["steps"], curve["values"], strict=True)) for name, curve in lab.metrics(job_id).items()
    }


def assert_complete(lab, job_id, page: Page) -> None:
    """Assert that the page has received each event of a job once, and the stored points of each curve."""
    assert page.has_ended
    assert page.points == stored(lab, job_id)
    history = lab.api.get(f"/v1/jobs/{job_id}/history").json()["events"]
    received = [event.data for event in page.events if event.name in ("status", "log")]
    assert [{name: data[name] for name in history[0]} for data in received] == history


def wait_for_metrics(listener: Listener, count: int = 1) -> None:
    until(lambda: len(listener.page.named("metric")) >= count or listener.error)
    assert listener.error is None


def test_stream_resumes_on_a_restarted_api(lab, served):
    job_id = lab.submit(LONG)
    listener = served.listen(job_id)
    wait_for_metrics(listener, 2)
    served.process.kill()
    served.process.wait()
    page = listener.wait_until_closed()
    served.start()
    listener = served.listen(job_id, page)
    wait_for_metrics(listener, len(page.named("metric")) + 2)
    served.process.terminate()
    assert served.process.wait(20) == 0
    listener.wait_until_end()
    assert not page.has_ended
    assert "ERROR" not in served.log()
    assert "Traceback" not in served.log()
    served.start()
    listener = served.listen(job_id, page)
    wait_for_metrics(listener, len(page.named("metric")) + 1)
    lab.api.post(f"/v1/jobs/{job_id}/cancel")
    listener.wait_until_end()
    assert_complete(lab, job_id, page)
    assert page.statuses() == ["queued", "running", "cancelled"]
    assert len(page.points["train_loss"]) > 10


def test_stream_rewinds_when_a_job_restarts(lab, served, worker):
    job_id = lab.submit(LONG)
    listener = served.listen(job_id)
    wait_for_metrics(listener, 2)
    child = worker.child()
    os.kill(child, signal.SIGKILL)
    until(lambda: listener.page.statuses()[-2:] == ["queued", "running"])
    wait_for_metrics(listener, len(listener.page.named("metric")) + 2)
    lab.api.post(f"/v1/jobs/{job_id}/cancel")
    page = listener.wait_until_end()
    assert_complete(lab, job_id, page)
    assert [event.data["rewind_to"] for event in page.named("log")] == [0]


def test_many_listeners_receive_the_same_events(lab, served):
    job_id = lab.submit(JOB | {"budget": {"steps": 1000}})
    listeners = [served.listen(job_id) for _ in range(LISTENERS)]
    for listener in listeners:
        listener.opened()
    assert served.client.get("/healthz").is_success
    pages = [listener.wait_until_end() for listener in listeners]
    assert_complete(lab, job_id, pages[0])
    assert all(page.points == pages[0].points for page in pages)
    assert all(page.seqs() == pages[0].seqs() for page in pages)
