"""Optimizers and models of libraries train the digits through the service; all optimizers in `make test-all`."""

import pytest

from service.specs.catalog.libraries import libraries
from tests.acceptance.lab import Lab, running_worker
from tests.thoroughness import IS_FULL

OFFERED = [declared for library in libraries() for declared in library.optimizers if declared.refusal is None]
SAMPLE = [
    "torch/adafactor",
    "torch/lbfgs",
    "torch/rprop",
    "pytorch_optimizer/adahessian",
    "pytorch_optimizer/ademamix",
    "pytorch_optimizer/alig",
    "pytorch_optimizer/muon",
    "pytorch_optimizer/prodigy",
    "pytorch_optimizer/ranger21",
    "pytorch_optimizer/shampoo",
    "pytorch_optimizer/soap",
    "pytorch_optimizer/wsam",
    "schedulefree/adamwschedulefree",
    "schedulefree/sgdschedulefree",
    "heavyball/laprop",
]
JOB = {
    "dataset": "digits",
    "model": {"name": "mlp", "params": {"hidden": [32]}},
    "budget": {"epochs": 2},
    "batch_size": 64,
    "device": "cpu",
    "log_every_steps": 5,
}


@pytest.fixture(scope="module")
def worker(schema):
    with running_worker() as worker:
        yield worker


def test_optimizers_train_the_digits(api, worker):
    lab = Lab(api)
    names = [declared.name for declared in OFFERED if IS_FULL or declared.name in SAMPLE]
    jobs = {name: lab.submit(JOB, optimizer=name) for name in names}
    ended = {name: lab.ended(job_id) for name, job_id in jobs.items()}
    failed = {name: job["message"] for name, job in ended.items() if job["status"] != "succeeded"}
    assert not failed
    for name, job in ended.items():
        curves = lab.metrics(job["id"])
        assert max(curves["update_norm"]["values"]) > 0, f"{name} changes no weight"
        assert job["summary"]["metrics"]["test_accuracy"] is not None
    assert len(names) >= (150 if IS_FULL else len(SAMPLE))


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_models_train_the_digits(api, worker, name):
    lab = Lab(api)
    job = JOB | {"model": name, "optimizer": {"name": "ko", "params": {"base": "muon"}}, "budget": {"steps": 10}}
    plain, again = (lab.ended(lab.submit(job)) for _ in range(2))
    assert plain["status"] == "succeeded", plain["message"]
    dry_run = api.post("/v1/jobs", params={"dry_run": True}, json=job).json()
    assert plain["summary"]["parameters"] == dry_run["model"]["parameters"]
    assert plain["summary"]["metrics"]["test_loss"] == again["summary"]["metrics"]["test_loss"]
