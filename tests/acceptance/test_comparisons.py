"""A comparison over HTTP with a real worker: tuning, a verdict at an interim look, report, reuse, cancel."""

import pytest

from tests.acceptance.lab import Lab, running_worker
from tests.waiting import until

LR = {"lr": {"log_uniform": [0.0003, 0.03]}}
REQUEST = {
    "name": "acceptance",
    "tasks": [
        {
            "dataset": "digits",
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "budget": {"epochs": 2},
            "target": {"value": 0.5},
        }
    ],
    "optimizers": [
        {"name": "adam", "space": LR},
        {"name": "ko", "params": {"collision": "hard"}, "space": {**LR, "rate": {"uniform": [0.1, 0.9]}}},
        {"name": "sgd", "params": {"lr": 0.0001}},
    ],
    "tuning": {"trials": 3},
    "seeds": {"max": 8, "looks": [4, 8]},
}


@pytest.fixture(scope="module")
def worker(schema):
    with running_worker() as worker:
        yield worker


@pytest.fixture
def lab(api, worker):
    return Lab(api)


def start(lab, **fields) -> dict:
    response = lab.api.post("/v1/comparisons", json=REQUEST | fields)
    assert response.status_code == 202, response.text
    return response.json()


def ended(lab, comparison) -> dict:
    """Wait until the comparison has ended, and return it."""

    def answer_if_ended():
        answer = lab.api.get(f"/v1/comparisons/{comparison['id']}").json()
        return answer if answer["status"] != "running" else None

    return until(answer_if_ended, 90)


def test_comparison_ends_with_a_verdict_and_a_repeated_one_reuses_all_runs(lab):
    answer = ended(lab, start(lab))
    assert (answer["status"], answer["progress"]["failed"]) == ("succeeded", 0)
    (task,) = answer["tasks"]
    assert task["verdict"]["text"]
    sgd = next(group for group in task["groups"] if group["label"].startswith("sgd"))
    assert sgd["n"] == 4  # far behind, and therefore dropped at the first look
    assert all(pair["significant"] for pair in task["pairs"] if pair["b"] == sgd["label"])
    assert [len(view["trials"]) for view in task["tuning"]] == [3, 3]
    assert all(cost["milliseconds_per_step"] > 0 and cost["optimizer_state_bytes"] is not None for cost in task["cost"])
    assert {group["label"]: group["reached"] for group in task["to_target"]}[sgd["label"]] == 0

    jobs = lab.api.get("/v1/jobs", params={"comparison": answer["id"], "limit": 500}).json()["data"]
    trials = [job for job in jobs if not job["spec"]["evaluate_test"]]
    assert len(trials) == 6
    for job in trials:
        assert "test_accuracy" not in job["summary"]["metrics"]
        assert "test_accuracy" not in lab.metrics(job["id"])

    again = start(lab)
    assert (again["status"], again["progress"]["reused"]) == ("succeeded", answer["progress"]["jobs"])
    assert again["tasks"][0]["verdict"] == task["verdict"]
    planned = lab.api.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST).json()
    assert all(estimate["seconds"] > 0 and estimate["runs"] > 0 for estimate in planned["estimates"])

    page = lab.api.get(f"/v1/comparisons/{answer['id']}/report").text
    assert "<svg" in page
    assert task["verdict"]["text"].split(".")[0].split("(")[0] in page


def test_budget_in_seconds(lab):
    tasks = [REQUEST["tasks"][0] | {"budget": {"seconds": 0.3}}]
    answer = ended(lab, start(lab, tasks=tasks, optimizers=["adam", "sgd"], tuning=None, seeds=3))
    assert answer["status"] == "succeeded"
    assert all(0.3 <= cost["train_seconds"] < 1.5 for cost in answer["tasks"][0]["cost"])


def test_cancel_stops_the_jobs(lab):
    tasks = [REQUEST["tasks"][0] | {"budget": {"steps": 10_000_000}}]
    comparison = start(lab, tasks=tasks)
    until(lambda: lab.api.get("/v1/jobs", params={"status": "running"}).json()["data"])
    assert lab.api.post(f"/v1/comparisons/{comparison['id']}/cancel").json()["status"] == "cancelled"
    until(lambda: {job["status"] for job in lab.api.get("/v1/jobs").json()["data"]} == {"cancelled"})
