"""Comparisons of plug-ins that an administrator updates or removes."""

import pytest

from service.accounts import api_keys
from service.comparisons import lifecycle
from tests import plugin_packages
from tests.clients import client
from tests.integration.api_calls import problem
from tests.integration.comparisons.comparison_calls import LR, finish_all, show, specs, start
from tests.integration.comparisons.comparison_calls import job_ids as jobs
from workers import maintenance

MODULE = "from torch.optim import SGD\n\nclass Mine(SGD):\n    def __init__(self, params, lr: float = 0.1): ...\n"
NAME = "c_lab/mine"
WITH_PLUGIN = {"optimizers": [{"name": "adam", "space": LR}, {"name": NAME, "params": {"lr": 0.1}}]}
BASES = {"base": {"choice": ["adam", NAME]}, **LR}
AS_TUNED_BASE = {"optimizers": [{"name": "adam", "space": LR}, {"name": "ko", "space": BASES}]}


@pytest.fixture
def change(tmp_path, monkeypatch):
    """A function that installs the plug-in with this default learning rate; None: that removes it."""
    monkeypatch.syspath_prepend(tmp_path)

    def change(lr):
        plugin = f"mine = {NAME.replace('/', '.')}:Mine"
        plugin_packages.install(
            tmp_path, plugin if lr else "", {f"{NAME}.py": MODULE.replace("0.1", str(lr)), "c_lab/__init__.py": ""}
        )

    change(0.1)
    yield change
    plugin_packages.restart()


def names(comparison):
    return {spec["optimizer"]["name"] for spec in specs(jobs(comparison))}


@pytest.mark.parametrize("lr", [0.2, None])
@pytest.mark.parametrize("optimizers", [WITH_PLUGIN, AS_TUNED_BASE])
def test_ended_comparisons_stay_readable_and_running_ones_fail_with_the_reason(ada, change, lr, optimizers):
    old = ada.get(f"/v1/catalog/optimizers/{NAME}").json()["name"]
    ended = start(ada, **optimizers)
    finish_all()
    running = start(ada, **optimizers, seeds=4, reuse=False)
    verdict = show(ada, ended)["verdict"]
    change(lr)
    lifecycle._answers.clear()  # as in a new process
    assert show(ada, ended)["verdict"] == verdict
    assert old in ada.get(f"/v1/comparisons/{ended['id']}/report").text
    detail = problem(ada.get(f"/v1/comparisons/{running['id']}"), 409)["detail"]
    assert "needs an optimizer that this server does not have" in detail
    assert f"{old} is not installed here" in detail if lr else f"unknown optimizer '{old}'" in detail
    maintenance.advance_comparisons()
    failed = show(ada, running)
    assert (failed["status"], failed["progress"]["failed"]) == ("failed", 0)
    assert old in failed["message"]


def test_runs_of_an_old_version_are_not_reused(ada, change):
    start(ada, **WITH_PLUGIN)
    finish_all()
    assert start(ada, **WITH_PLUGIN)["progress"]["reused"] == 8
    change(0.2)
    again = start(ada, **WITH_PLUGIN)
    assert again["progress"]["reused"] == 5  # those of Adam: two trials, and three seeds
    assert len(names(again)) == 2


def test_a_user_with_the_name_of_a_package_cannot_upload(empty, change):
    with client(api_keys.create("c_lab")) as user:
        answer = user.post("/v1/code?kind=optimizer&name=other", content=MODULE)
    assert "c_lab is a package of plug-ins on this server" in problem(answer, 422)["detail"]


def test_unknown_names_are_answered_with_those_of_the_package(api, change):
    detail = problem(api.get("/v1/catalog/optimizers/c_lab/mein"), 404)["detail"]
    assert detail == f"unknown plug-in 'c_lab/mein' (did you mean '{NAME}'?); choose one of {NAME}"
    name = api.get(f"/v1/catalog/optimizers/{NAME}").json()["name"]
    detail = problem(api.get(f"/v1/catalog/optimizers/{NAME}@00000000"), 404)["detail"]
    assert detail == f"{NAME}@00000000 is not installed here; the installed version is {name}"
