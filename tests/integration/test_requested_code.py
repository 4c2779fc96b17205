"""The uploaded code that requests name: which fields are looked at, and how often the database is asked."""

import pytest

from service.code import versions
from tests.connections import statements
from tests.integration.comparisons.comparison_calls import LR, REQUEST
from tests.integration.test_code import JOB, upload

TAGS = {f"tag{number}": f"a/b{number}" for number in range(20)}


def queries(recorded):
    return [text for text, _ in recorded if "FROM code_versions" in text and "FOR KEY SHARE" not in text]


def test_names_in_other_fields_are_not_looked_up(api):
    name = upload(api).json()["name"]
    with statements() as recorded:
        answer = api.post("/v1/jobs?dry_run=true", json=JOB | {"optimizer": "ada/mine", "tags": TAGS})
    assert answer.status_code == 200, answer.text
    assert answer.json()["spec"]["optimizer"]["name"] == name
    (query,) = queries(recorded)
    assert not [parameters for text, parameters in recorded if text == query and "a/b" in str(parameters)]


def test_all_names_of_a_request_are_one_query(api):
    names = [upload(api, f"code{number}", 0.1).json()["name"] for number in range(3)]
    newest = upload(api, "code0", 0.2).json()["name"]
    request = REQUEST | {
        "optimizers": [
            {"name": "ada/code0", "label": "newest", "space": LR},
            {"name": names[0], "label": "older", "space": LR},
            {"name": "ko", "label": "fixed base", "params": {"base": "ada/code1"}, "space": LR},
            {"name": "ko", "label": "tuned base", "space": {"base": {"choice": ["ada/code2", "adam"]}}},
        ]
    }
    with statements() as recorded:
        answer = api.post("/v1/comparisons?dry_run=true", json=request)
    assert answer.status_code == 200, answer.text
    planned = answer.json()["plan"]["optimizers"]
    assert [optimizer["name"] for optimizer in planned] == [newest, names[0], "ko", "ko"]
    assert planned[2]["trials"][0]["base"] == names[1]
    assert names[2] in [trial["base"] for trial in planned[3]["trials"]]
    assert len(queries(recorded)) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"optimizer": 1},
        {"optimizers": {}},
        {"optimizers": [None, [], {"params": []}, {"space": {"base": "x"}}]},
        {"optimizers": [{"name": [], "params": {"base": {}}, "space": {"base": {"choice": {}}}}]},
    ],
)
def test_invalid_bodies_are_left_to_the_validation(api, body):
    assert api.post("/v1/comparisons", json=body).status_code == 422


def test_unknown_names_are_left_out(api):
    name = upload(api).json()["name"]
    found = versions.resolve(["ada/mine", name, "ada/other", "bob/mine", f"{name[:-1]}x", "ada/mine@00000000"])
    assert {known: declared.name for known, declared in found.items()} == {"ada/mine": name, name: name}
