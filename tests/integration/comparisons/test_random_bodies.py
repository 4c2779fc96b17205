"""Randomly corrupted requests: the response names the invalid fields and is never a 500."""

import copy
import json
import random

import pytest
from sqlalchemy import func

from service.storage import database
from service.storage.tables import Worker

RANGE = {"log_uniform": [0.0003, 0.03]}
RICH = {
    "name": "test",
    "tasks": [
        {"dataset": {"name": "digits", "params": {"split": "fixed_test"}}, "model": "mlp", "budget": {"epochs": 3}},
        {
            "label": "second",
            "dataset": {"name": "digits", "params": {"split": "fixed_test", "split_seed": 1}},
            "model": {"name": "mlp", "params": {"hidden": [16, 16]}},
            "schedule": "cosine",
            "budget": {"steps": 90},
            "batch_size": 32,
            "precision": "fp32",
            "device": "cpu",
            "target": {"metric": "val_loss", "value": 0.5},
        },
    ],
    "optimizers": [
        {"name": "adam", "space": {"lr": RANGE, "eps": {"uniform": [1e-9, 1e-7]}}},
        {"name": "ko", "params": {"base": "adam"}, "space": {"lr": RANGE, "gamma": {"choice": [0.1, 0.2]}}},
        {"name": "sgd", "params": {"lr": 0.1}, "label": "plain"},
    ],
    "tuning": {"trials": 9, "seeds": 2, "method": "halving", "first_seed": 1000, "reduction": 3, "points_seed": 1},
    "seeds": {"max": 10, "first": 3, "looks": [5, 10]},
    "vary": ["seed", "split"],
    "metric": "test_accuracy",
    "diverged_score": 0.0,
    "tags": {"study": "x"},
    "priority": 1,
    "time_limit_seconds": 60,
    "max_failures": 2,
}
NASTY = [
    None, True, 0, -1, 1, 2, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**400, 0.1, 1e-320, 1e100, 1.7e308, -1.7e308,
    float("inf"), float("nan"), "", "adam", "any", "\ud800", "a\x00b", "x" * 10_000, "grid", "fp16", "cuda", "auto",
    [], [1], [1, 2], [2, 1], [0, 2**63 - 1], [10**400, 10**401], [-1.7e308, 1.7e308], [1e-320, 1.7e308], ["\ud800"],
    [[[[]]]], {}, {"\ud800": 1}, {"a\x00": 1}, {"name": "adam"}, {"choice": ["\ud800", 10**400, None, {}]},
    {"choice": [0.001]}, {"integer": [10**400, 10**401]}, {"integer": [0, 2**63]}, {"uniform": [-1.7e308, 1.7e308]},
    {"log_uniform": [1e-320, 1.7e308]}, {"steps": 1}, {"seconds": 1e-300}, {"max": 1000, "first": 2**63 - 1},
]  # fmt: skip


def paths(value, path=()):
    """Yield every path in a document."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from paths(child, (*path, key))


def corrupted(draw: random.Random) -> dict:
    """Return the rich request with one or two values replaced or removed, or with an unknown field added."""
    body = copy.deepcopy(RICH)
    for _ in range(draw.choice([1, 1, 2])):
        *parents, last = draw.choice(list(paths(body)))
        node = body
        for key in parents:
            node = node[key]
        match draw.choice(["replace"] * 6 + ["drop", "add"]):
            case "replace":
                node[last] = copy.deepcopy(draw.choice(NASTY))
            case "drop":
                del node[last]
            case "add" if isinstance(node, dict):
                node[draw.choice(["unknown", "", "\ud800", "a/b~c"])] = copy.deepcopy(draw.choice(NASTY))
    return body


@pytest.fixture
def dry_run(api):
    with database.transaction() as session:
        session.add(
            Worker(id="w", host="here", slots=1, devices=[{"kind": "cpu"}], heartbeat_at=func.clock_timestamp())
        )

    def post(body):
        return api.post(
            "/v1/comparisons",
            params={"dry_run": True},
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )

    return post


def test_valid_body_is_accepted(dry_run):
    answer = dry_run(RICH)
    assert answer.status_code == 200, answer.text


def test_random_bodies_never_cause_a_500(dry_run):
    for seed in range(300):
        body = corrupted(random.Random(seed))
        answer = dry_run(body)
        assert answer.status_code in (200, 400, 422), (body, answer.text)
        assert answer.status_code != 422 or answer.json()["errors"], (body, answer.text)


@pytest.mark.parametrize(
    ("where", "value", "pointer"),
    [
        (("tasks", 0, "precision"), "fp16", "/tasks/0/precision"),  # no worker has a GPU
        (("tuning", "first_seed"), 2**63 - 1, "/tuning/first_seed"),
        (("seeds", "first"), 2**63 - 1, "/seeds/first"),
        (("optimizers", 0, "space", "lr"), {"integer": [10**400, 10**401]}, "/optimizers/0/space/lr/integer/0"),
        (("optimizers", 0, "space", "lr"), {"integer": [0, 2**63]}, "/optimizers/0/space/lr/integer/1"),
        (("optimizers", 0, "space", "lr"), {"uniform": [-1.7e308, 1.7e308]}, "/optimizers/0/space/lr/uniform/0"),
    ],
)
def test_numbers_out_of_range_are_refused_with_a_pointer(dry_run, where, value, pointer):
    body = copy.deepcopy(RICH)
    *parents, last = where
    node = body
    for key in parents:
        node = node[key]
    node[last] = value
    answer = dry_run(body)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.text
