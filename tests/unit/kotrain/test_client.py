"""The client's methods on the real API: jobs, comparisons of runs, waiting, keys and addresses."""

import fcntl
import json
import os
import subprocess
from uuid import uuid4

import httpx2
import pytest

from kotrain import (
    Client,
    Conflict,
    InvalidRequest,
    InvalidValue,
    JobRequest,
    NotFound,
    Unauthorized,
    WaitTimeout,
    waiting,
)
from kotrain.errors import from_problem
from service.specs.bodies import Problem

JOB = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


class TestJobs:
    def test_submit_and_get(self, client):
        job = client.submit({**JOB, "tags": {"a": "b"}})
        assert (job.status, job.user, job.tags) == ("queued", "ada", {"a": "b"})
        assert job.spec["optimizer"]["params"]["lr"] == 0.001
        assert client.get(job) == client.get(job.id) == client.get(str(job.id)) == job

    def test_submits_request_model(self, client):
        request = JobRequest.model_validate({**JOB, "optimizer": {"name": "ko", "params": {"collision": "hard"}}})
        assert client.submit(request).spec == request.train_spec.model_dump(mode="json")

    def test_dry_run_creates_no_job(self, client):
        tag = uuid4().hex
        answer = client.submit({**JOB, "tags": {"once": tag}}, dry_run=True)
        assert answer.spec["batch_size"] == 64
        assert list(client.list(tag=f"once:{tag}")) == []

    def test_repeated_idempotency_key_returns_first_job(self, client):
        key = str(uuid4())
        assert client.submit(JOB, idempotency_key=key).id == client.submit(JOB, idempotency_key=key).id
        assert client.submit(JOB).id != client.submit(JOB).id

    def test_invalid_request_lists_fields(self, client):
        with pytest.raises(InvalidRequest) as error:
            client.submit({**JOB, "optimizer": {"name": "adam", "params": {"lr": -1}}, "batch_size": 0})
        assert {field.pointer for field in error.value.fields} == {"/optimizer/params/lr", "/batch_size"}

    def test_list_follows_pages(self, client):
        tag = uuid4().hex
        submitted = [client.submit({**JOB, "seed": seed, "tags": {"page": tag}}).id for seed in range(5)]
        listed = [job.id for job in client.list(tag=f"page:{tag}", page_size=2)]
        assert listed == submitted[::-1]

    def test_list_filters(self, client):
        job = client.submit({**JOB, "optimizer": "lion"})
        assert next(client.list(optimizer="lion", status="queued", dataset="digits", model="mlp", user="ada")) == job
        assert list(client.list(optimizer="lion", dataset="mnist")) == []

    def test_cancel_and_retry(self, client):
        job = client.submit(JOB)
        with pytest.raises(Conflict):
            client.retry(job)
        assert client.cancel(job).status == "cancelled"
        retried = client.retry(job)
        assert retried.retry_of == job.id
        assert client.retry(job).id == retried.id

    def test_metrics_of_queued_job_are_empty(self, client):
        assert client.metrics(client.submit(JOB), names=["train_loss"], max_points=10).metrics == {}

    def test_unknown_job_raises_not_found(self, client):
        with pytest.raises(NotFound, match="not found"):
            client.get(uuid4())


class TestAnswers:
    def test_catalog(self, client):
        catalog = client.catalog()
        assert {"digits", "cifar10"} <= {dataset.name for dataset in catalog.datasets}
        assert catalog.datasets[0].present

    def test_compare_without_runs(self, client):
        answer = client.compare("digits", "mlp", tag="study:none")
        assert answer.groups == []
        assert not answer.verdict.decided

    def test_text_of_an_error_names_its_fields(self):
        field = {"pointer": "/batch_size", "detail": "32, 64: keep one with where=batch_size=32"}
        problem = {"type": "a", "title": "b", "status": 422, "detail": "keep one value of each field named here"}
        error = from_problem(Problem.model_validate({**problem, "errors": [field]}))
        assert str(error) == f"{problem['detail']}\n/batch_size: {field['detail']}"
        assert str(from_problem(Problem.model_validate({**problem, "errors": []}))) == problem["detail"]
        repeated = Problem.model_validate({**problem, "detail": f"/a: {field['detail']}", "errors": [field]})
        assert str(from_problem(repeated)) == repeated.detail

    def test_compare_rejects_unknown_parameter(self, client):
        with pytest.raises(InvalidRequest, match="colour"):
            client.compare("digits", "mlp", colour="red")


class TestWait:
    def test_returns_single_job(self, client):
        job = client.cancel(client.submit(JOB))
        assert client.wait(job) == job

    def test_returns_jobs_in_given_order(self, client):
        jobs = [client.cancel(client.submit(JOB)) for _ in range(3)]
        assert client.wait(reversed(jobs)) == jobs[::-1]
        assert client.wait([]) == []

    def test_timeout_counts_unfinished_jobs(self, client):
        jobs = [client.cancel(client.submit(JOB)), client.submit(JOB)]
        reports = []
        with pytest.raises(WaitTimeout, match=r"^1 of 2 jobs has not ended after 0\.05 s$"):
            client.wait(jobs, timeout=0.05, on_progress=reports.append)
        assert [job.status for job in reports[0]] == ["cancelled", "queued"]

    def test_polls_with_growing_pauses(self, client, monkeypatch):
        job, pauses = client.submit(JOB), []

        def sleep(seconds):
            pauses.append(seconds)
            if len(pauses) == 8:
                client.cancel(job)

        monkeypatch.setattr(waiting.time, "sleep", sleep)
        assert client.wait(job).status == "cancelled"
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (0.1, 1.0)

    def test_part_of_an_id_may_become_ambiguous_meanwhile(self, client, monkeypatch):
        job = client.submit(JOB)

        def sleep(_):
            client.submit(JOB)  # its id begins alike
            client.cancel(job)

        monkeypatch.setattr(waiting.time, "sleep", sleep)
        assert client.wait(str(job.id)[:8]).id == job.id

    def test_polls_limited_number_of_jobs(self, client):
        jobs = [client.submit(JOB) for _ in range(2 * waiting.POLLED_JOBS)]
        reports = []
        with pytest.raises(WaitTimeout):
            client.wait(jobs, timeout=0, on_progress=reports.append)
        assert len(reports[0]) == waiting.POLLED_JOBS


class TestKey:
    def test_unknown_key_raises_unauthorized(self, api):
        with pytest.raises(Unauthorized, match="unknown API key"):
            Client(http=api, key="kt_wrong").catalog()

    @pytest.fixture
    def stack(self, tmp_path, monkeypatch):
        """A home whose stack runs at http://127.0.0.1:1, by its lock and run file."""
        (tmp_path / "key").write_text("mine\n")
        (tmp_path / "running.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
        monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
        monkeypatch.delenv("KOTRAIN_KEY", raising=False)
        with (tmp_path / "lock").open("w") as lock:
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield tmp_path

    @pytest.mark.parametrize(
        ("url", "sent"),
        [
            ("http://127.0.0.1:1", "Bearer mine"),
            ("http://127.0.0.1:1/", "Bearer mine"),
            ("http://localhost:1", None),
            ("http://[::1]:1", None),
            ("http://127.0.0.2:1", None),
            ("http://127.0.0.1:2", None),
            ("https://127.0.0.1:1", None),
            ("http://lab:1", None),
        ],
    )
    def test_key_of_home_is_sent_to_its_stack_only(self, stack, url, sent):
        assert authorization(base_url=url) == sent

    def test_key_of_home_is_sent_to_a_stack_that_listens_for_other_machines(self, stack):
        (stack / "running.json").write_text(json.dumps({"url": "http://192.0.2.1:8000", "pid": os.getpid()}))
        assert authorization(base_url="http://192.0.2.1:8000") == "Bearer mine"
        assert authorization(base_url="http://lab:8000") is None

    def test_error_names_the_address_to_which_the_key_of_the_home_is_sent(self, stack, api):
        del api.headers["Authorization"]
        with pytest.raises(Unauthorized, match=f"the one in {stack}/key is sent to http://127.0.0.1:1 only; set KOTR"):
            Client(http=api).catalog()

    def test_localhost_is_the_address_of_the_running_stack(self, stack):
        """The name may also mean ::1, where another user can listen."""
        with Client("http://localhost:1") as client, Client("http://localhost:2") as other:
            assert (client.url, other.url) == ("http://127.0.0.1:1", "http://localhost:2")

    @pytest.mark.parametrize("key", ["kt_\u00e9", "a b", "a\nb"])
    def test_invalid_key_is_not_printed(self, key):
        with pytest.raises(InvalidValue) as error:
            Client("http://127.0.0.1:9", key=key)
        assert key not in str(error.value)

    def test_key_of_home_is_not_sent_while_its_stack_is_stopped(self, stack):
        """Another user may listen at the address that a killed stack left in its run file."""
        (stack / "lock").unlink()
        (stack / "lock").write_text(f"{os.getpid()}\n")
        assert authorization(base_url="http://127.0.0.1:1") is None

    def test_key_of_home_is_not_sent_if_only_servers_are_left(self, stack):
        """They hold the lock of the process that has been killed."""
        process = subprocess.Popen(["true"])
        process.wait()
        (stack / "running.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": process.pid}))
        (stack / "lock").write_text(f"{process.pid}\n")
        assert authorization(base_url="http://127.0.0.1:1") is None

    def test_key_of_environment_takes_precedence(self, tmp_path, monkeypatch):
        (tmp_path / "key").write_text("mine\n")
        monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
        monkeypatch.setenv("KOTRAIN_KEY", "theirs")
        assert authorization(base_url="http://127.0.0.1") == "Bearer theirs"


def authorization(base_url):
    """The header that a client sends."""
    headers = []

    def handle(request):
        headers.append(request.headers.get("Authorization"))
        return httpx2.Response(200, json={"metrics": {}})

    Client(http=httpx2.Client(transport=httpx2.MockTransport(handle), base_url=base_url)).metrics("1")
    return headers[0]


class TestAddress:
    def test_default_address(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
        monkeypatch.delenv("KOTRAIN_URL", raising=False)
        monkeypatch.delenv("KOTRAIN_PORT", raising=False)
        with Client() as client:
            assert client.url == "http://127.0.0.1:8000"

    @pytest.mark.parametrize(
        ("host", "port", "url"),
        [
            ("0.0.0.0", "8100", "http://127.0.0.1:8100"),
            ("gpu1", "0", "http://gpu1:8000"),
            ("::1", "81", "http://[::1]:81"),
        ],
    )
    def test_default_address_by_the_settings_of_the_stack(self, tmp_path, monkeypatch, host, port, url):
        for name, value in (("HOME", str(tmp_path)), ("URL", ""), ("HOST", host), ("PORT", port)):
            monkeypatch.setenv(f"KOTRAIN_{name}", value)
        with Client() as client:
            assert client.url == url

    def test_address_of_running_stack(self, tmp_path, monkeypatch):
        (tmp_path / "running.json").write_text('{"url": "http://127.0.0.1:4321", "pid": 1}')
        monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
        monkeypatch.delenv("KOTRAIN_URL", raising=False)
        with Client() as client:
            assert client.url == "http://127.0.0.1:4321"
        monkeypatch.setenv("KOTRAIN_URL", "http://lab:1")
        with Client() as client, Client("http://other:2") as other:
            assert (client.url, other.url) == ("http://lab:1", "http://other:2")
