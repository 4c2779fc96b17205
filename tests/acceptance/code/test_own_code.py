"""Optimizers of users through the service: upload, train, compare versions, measure."""

from pathlib import Path

import pytest

from tests.acceptance.code.test_attacks import upload
from tests.acceptance.lab import JOB, Lab, running_worker
from tests.waiting import until

OWN = Path(__file__).with_name("own.py").read_text()
COPY_OF_ADAM = '''
"""Adam, as a file of one's own."""
import torch

class Copy(torch.optim.Adam):
    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)):
        super().__init__(params, lr=lr, betas=betas)
'''
LIAR = COPY_OF_ADAM.replace(
    "class Copy",
    """
import sys
Evaluator = sys.modules["workers.training.evaluation"].Evaluator
Evaluator.evaluate = lambda self, batches: {"loss": 0.001, "accuracy": 1.0}

class Copy""",
)
FORGER = """
import sys
messages = sys.modules["workers.messages"]
Checked = messages.Checked
messages.Checked = lambda results: Checked([("resume", "pass", "it does")])
"""
FORGETFUL = (
    COPY_OF_ADAM
    + """
    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1  # is not part of its state
        self.param_groups[0]["lr"] = 1e-3 / self.count
        return super().step(closure)
"""
)
FACTORY = '''
"""Adam for the first layer, SGD for the rest."""
import torch

def make(model, lr: float = 0.01, momentum: float = 0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
'''


@pytest.fixture(scope="module")
def worker(schema):
    with running_worker() as worker:
        yield worker


def results(job):
    return {
        name: value for name, value in job["summary"]["metrics"].items() if name.startswith(("test", "val", "best"))
    }


def notes(api, job):
    events = api.get(f"/v1/jobs/{job['id']}/history").json()["events"]
    return [event["message"] for event in events if event["message"]]


def test_own_copy_has_the_results_of_the_built_in_optimizer(api, worker):
    lab = Lab(api)
    names = {"adam": "adam", "copy": upload(api, "own_adam", COPY_OF_ADAM), "factory": upload(api, "factory", FACTORY)}
    names["sgd"] = {"name": "sgd", "params": {"lr": 0.01}}
    jobs = {label: lab.ended(lab.submit(JOB, optimizer=optimizer)) for label, optimizer in names.items()}
    assert {job["status"] for job in jobs.values()} == {"succeeded"}
    assert results(jobs["copy"]) == results(jobs["adam"])
    assert results(jobs["factory"]) == results(jobs["sgd"])
    test = lab.metrics(jobs["copy"]["id"])["test_accuracy"]
    assert test["values"] == [jobs["adam"]["summary"]["metrics"]["test_accuracy"]]


def test_results_are_measured_and_not_believed(api, worker):
    lab = Lab(api)
    job = lab.ended(lab.submit(JOB, optimizer=upload(api, "liar", LIAR)))
    honest = lab.ended(lab.submit(JOB))
    assert job["status"] == "succeeded"
    assert results(job)["test_accuracy"] == results(honest)["test_accuracy"] < 1
    assert results(job)["val_accuracy"] == results(honest)["val_accuracy"] < 1
    assert any("reported val_accuracy 1; its weights have" in text for text in notes(api, job))


def test_newest_version_is_chosen_at_submission(api, worker):
    lab = Lab(api)
    first = upload(api, "mine", OWN)
    second = upload(api, "mine", OWN.replace("lr: float = 1e-3", "lr: float = 2e-3"))
    assert first != second
    by_name = lab.show(lab.submit(JOB, optimizer="ada/mine"))["spec"]["optimizer"]
    assert by_name == {"name": second, "params": {"lr": 2e-3, "beta": 0.9}}
    assert lab.show(lab.submit(JOB, optimizer=first))["spec"]["optimizer"]["params"]["lr"] == 1e-3
    diff = api.get(f"/v1/code/{second}/diff?old={first}").json()["diff"]
    assert "+    def __init__(self, params, lr: float = 2e-3" in diff


@pytest.mark.parametrize("wrapper", ["ko", "bimaxwell"])
def test_serves_as_base(api, worker, wrapper):
    lab = Lab(api)
    name = upload(api, "mine", OWN)
    job = lab.ended(lab.submit(JOB, optimizer={"name": wrapper, "params": {"base": "ada/mine", "beta": 0.5}}))
    assert job["status"] == "succeeded", job["message"]
    assert job["spec"]["optimizer"]["params"]["base"] == name


def checks_of(api, name):
    """The outcomes of the conformance test of a version, by check."""
    until(lambda: api.get(f"/v1/code/{name}").json()["checks"])
    return {check["name"]: check for check in api.get(f"/v1/code/{name}").json()["checks"]}


def test_conformance_test_runs_on_upload(api, worker):
    checks = checks_of(api, upload(api, "mine", OWN))
    assert {check["outcome"] for check in checks.values()} == {"pass"}
    assert "AdamW" in checks["cost"]["text"]


@pytest.mark.parametrize(("source", "resumes"), [(OWN, True), (FORGETFUL, False)])
def test_only_what_resumes_bit_for_bit_writes_checkpoints(api, worker, source, resumes):
    lab = Lab(api)
    name = upload(api, "mine", source)
    assert checks_of(api, name)["resume"]["outcome"] == ("pass" if resumes else "warning")
    job = lab.ended(lab.submit(JOB, optimizer=name))
    assert job["status"] == "succeeded"
    assert any("no checkpoints are written" in text for text in notes(api, job)) != resumes


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        ("import os\nos._exit(3)", "ends the process with status 3"),
        ("raise OSError('mine')", "OSError: mine"),
        ("x = bytearray(2**40)", "memory"),
        (FORGER, "the results of the test are incomplete"),
    ],
)
def test_conformance_test_of_broken_code_fails(api, worker, attempt, text):
    name = upload(api, "broken", f"{attempt}\n{COPY_OF_ADAM}")
    (check,) = checks_of(api, name).values()
    assert check["outcome"] == "fail"
    assert text.lower() in check["text"].lower()


def test_trains_models_of_libraries(api, worker):
    """They are imported within the isolated processes that train and measure."""
    lab = Lab(api)
    job = JOB | {"model": "timm/test_resnet", "budget": {"steps": 3}, "optimizer": upload(api, "mine", OWN)}
    ended = lab.ended(lab.submit(job))
    assert ended["status"] == "succeeded", ended["message"]
    assert ended["summary"]["metrics"]["test_loss"] is not None
