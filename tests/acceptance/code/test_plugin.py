"""The plug-in in examples/: installed by pip, listed without being imported, trained as a member."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.code import plugins
from service.specs.catalog import uploaded
from tests import plugin_packages
from tests.acceptance.lab import JOB, Lab, running_worker
from tests.integration.api_calls import problem

EXAMPLE = Path(__file__).parents[3] / "examples" / "optimizer_plugin"
NAME = "our_lab/cautious_momentum"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of packages with the plug-in, on the path of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("packages")
    options = ["-qq", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, EXAMPLE], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        plugins.plugins.cache_clear()
        yield folder
    plugins.plugins.cache_clear()


@pytest.fixture(scope="module")
def worker(installed, schema):
    with running_worker(forked=False) as worker:
        yield worker


def test_it_is_listed_without_being_imported(api, installed):
    (package,) = [entry for entry in api.get("/v1/catalog").json()["libraries"] if entry["name"] == "our_lab"]
    assert (package["version"], package["licence"]) == ("1.0.0", "MIT")
    assert [entry["name"] for entry in package["optimizers"]] == [NAME]
    detail = api.get(f"/v1/catalog/optimizers/{NAME}").json()
    assert detail["params"]["properties"]["momentum"]["default"] == 0.9
    assert detail["space"] == {"lr": {"log_uniform": [1e-3, 1.0]}}
    assert not [module for module in sys.modules if module.startswith("our_lab")]


@pytest.mark.parametrize(("wrapper", "lr"), [(None, 0.05), ("ko", 0.02), ("bimaxwell", 0.2)])
def test_it_trains(api, worker, wrapper, lr):
    lab = Lab(api)
    optimizer = NAME if wrapper is None else {"name": wrapper, "params": {"base": NAME, "lr": lr}}
    job = lab.ended(lab.submit(JOB, optimizer=optimizer))
    assert job["status"] == "succeeded", job["message"]
    assert job["summary"]["metrics"]["val_accuracy"] > 0.5
    history = api.get(f"/v1/jobs/{job['id']}/history").json()["events"]
    assert not [event for event in history if "no checkpoints" in (event["message"] or "")]
    used = job["spec"]["optimizer"]
    assert (used["name"] if wrapper is None else used["params"]["base"]).startswith(f"{NAME}@")


def test_a_changed_plugin_is_another_version(api, worker, installed, monkeypatch):
    """Its results are not taken for those of the old one, and a worker that has the old one says so."""
    before = plugins.plugins()[NAME].declaration.name
    module = installed / "our_lab" / "cautious_momentum.py"
    module.write_text(module.read_text().replace("0.05", "0.06"))
    plugin_packages.restart()
    job = Lab(api).ended(Lab(api).submit(JOB, optimizer=NAME))
    assert job["status"] == "failed"
    name = job["spec"]["optimizer"]["name"]
    assert (
        job["message"]
        == f"this worker cannot run '{name}': {name} is not installed here; the installed version is {before}"
    )
    errors = problem(api.post("/v1/jobs", json=JOB | {"optimizer": before}), 422)["errors"]
    assert errors[0]["detail"] == f"{before} is not installed here; the installed version is {name}"
    monkeypatch.setattr(plugins, "plugins", dict)  # uninstalled
    uploaded.forget()
    assert api.get(f"/v1/jobs/{job['id']}").status_code == 200
    detail = problem(api.post(f"/v1/jobs/{job['id']}/retry"), 409)["detail"]
    assert f"cannot be repeated: unknown optimizer '{name}'" in detail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import torch\nclass Other(torch.optim.SGD): ...",
            "the entry point is 'CautiousMomentum', but the file defines",
        ),
        ("class CautiousMomentum(", "is not valid Python"),
        ("", "the entry point is 'CautiousMomentum', but the file defines no optimizer"),
        (None, "has no source file of the module cautious_momentum"),
    ],
)
def test_one_that_cannot_be_read_is_refused_with_the_reason(api, installed, text, reason):
    module = installed / "our_lab" / "cautious_momentum.py"
    content = module.read_text()
    try:
        module.unlink() if text is None else module.write_text(text)
        plugins.plugins.cache_clear()
        assert reason in api.get(f"/v1/catalog/optimizers/{NAME}").json()["refusal"]
        errors = problem(api.post("/v1/jobs", json=JOB | {"optimizer": NAME}), 422)["errors"]
        assert reason in errors[0]["detail"]
    finally:
        module.write_text(content)
        plugins.plugins.cache_clear()
