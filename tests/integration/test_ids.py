"""Parts of ids wherever the API takes the id of a job or a comparison."""

from uuid import uuid4

import pytest

from service.jobs import actions
from tests.integration.api_calls import problem
from tests.integration.comparisons.comparison_calls import REQUEST
from tests.integration.job_calls import do, load, submit

SUFFIX_OF_JOB = ("", "/history", "/metrics", "/artifacts", "/artifacts/spec.json", "/plots", "/events")
SUFFIX_OF_COMPARISON = ("", "/report?format=csv", "/plots", "/curves?metric=val_loss")


def test_every_path_of_a_job_takes_a_part(api):
    job = submit()
    do(actions.cancel_many, [job])
    for part in (str(job)[-8:], str(job)[:25], job.hex[-8:].upper(), job.hex):
        assert api.get(f"/v1/jobs/{part}").json()["id"] == str(job)
    for suffix in SUFFIX_OF_JOB:
        assert api.get(f"/v1/jobs/{str(job)[-8:]}{suffix}").status_code == 200, suffix


def test_every_path_of_a_comparison_takes_a_part(api):
    id_ = api.post("/v1/comparisons", json=REQUEST).json()["id"]
    for suffix in SUFFIX_OF_COMPARISON:
        assert api.get(f"/v1/comparisons/{id_[-8:]}{suffix}").status_code == 200, suffix
    jobs = api.get("/v1/jobs", params={"comparison": id_[-8:]}).json()["data"]
    assert len(jobs) > 1
    assert api.post(f"/v1/comparisons/{id_[-8:]}/cancel").json()["status"] == "cancelled"


def test_an_ambiguous_part_lists_the_newest_matches_and_changes_nothing(api):
    jobs = [submit() for _ in range(6)]
    detail = problem(api.post(f"/v1/jobs/{str(jobs[0])[:6]}/cancel"), 422)["detail"]
    assert all(f"{job} (queued)" in detail for job in jobs[1:])
    assert "and more; give more of the id" in detail
    body = {"action": "cancel", "jobs": [str(jobs[0]), str(jobs[0])[:6]]}
    assert problem(api.post("/v1/jobs/actions", json=body), 422)["errors"][0]["pointer"] == "/jobs/1"
    assert {load(job).status for job in jobs} == {"queued"}


def test_an_unknown_part_is_said_to_be_unknown(api):
    part = uuid4().hex[-8:]
    for noun in ("job", "comparison"):
        detail = problem(api.get(f"/v1/{noun}s/{part}"), 404)["detail"]
        assert detail == f"no {noun} has an id that begins or ends with '{part}'"
    body = {"action": "cancel", "jobs": [part]}
    assert problem(api.post("/v1/jobs/actions", json=body), 422)["errors"][0]["pointer"] == "/jobs/0"


@pytest.mark.parametrize("part", ["abc", "seven", "a" * 33, "a" * 40, "%"])
def test_what_is_no_part_of_an_id_is_refused(api, part):
    (error,) = problem(api.get(f"/v1/jobs/{part}".replace("%", "%25")), 422)["errors"]
    assert error["pointer"] == "job_id"


def test_the_key_is_checked_before_the_id(api):
    submit()
    for path in ("jobs/0000", "comparisons/0000/report", "jobs/0000/events", "jobs/0000/plots/loss.svg"):
        problem(api.get(f"/v1/{path}", headers={"Authorization": "Bearer wrong"}), 401)
