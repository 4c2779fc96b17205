"""What the owner of a job or a comparison changes after the fact: name, tags, note, archive."""

import pytest

from service.accounts import api_keys
from service.jobs import actions
from tests.integration.api_calls import JOB, problem
from tests.integration.comparisons.comparison_calls import REQUEST, finish_all, job_ids, show, start
from tests.integration.job_calls import do, submit


def change(api, path, status=200, **fields):
    response = api.patch(f"/v1/{path}", json=fields)
    assert response.status_code == status, response.text
    return response.json()


def ids(api, what, **query):
    return [row["id"] for row in api.get(f"/v1/{what}", params={"limit": 500, **query}).json()["data"]]


def runs(api, **query):
    answer = api.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp", **query}).json()
    return sum(standing["n"] for board in answer["boards"] for standing in board["standings"])


class TestJobs:
    def test_changes_only_what_is_named(self, api):
        path = f"jobs/{submit(tags={'study': 'a'})}"
        assert change(api, path, name=" first try ", note="one\n\ttwo")["name"] == "first try"
        changed = change(api, path, tags={"study": "b", "kept": "yes"})
        assert (changed["name"], changed["note"]) == ("first try", "one\n\ttwo")
        assert changed["tags"] == {"study": "b", "kept": "yes"}
        cleared = change(api, path, name=None, note="", tags={})
        assert (cleared["name"], cleared["note"], cleared["tags"]) == (None, None, {})
        assert api.get(f"/v1/{path}").json() == cleared

    def test_is_found_by_its_name_and_its_new_tags(self, api):
        job = str(submit())
        change(api, f"jobs/{job}", name="Baseline", tags={"study": "b"})
        assert ids(api, "jobs", search="baseLINE") == ids(api, "jobs", tag="study:b") == [job]

    def test_archive_leaves_lists_and_counts(self, api):
        kept, old = str(submit()), str(submit())
        do(actions.cancel_many, [old])
        assert change(api, f"jobs/{old}", archived=True)["archived_at"] is not None
        assert change(api, f"jobs/{old}", archived=True)["archived_at"] is not None
        assert ids(api, "jobs") == [kept]
        assert ids(api, "jobs", archived=True) == [old, kept]
        assert sum(api.get("/v1/jobs/counts").json()["counts"].values()) == 1
        assert api.get("/v1/overview").json()["jobs"]["cancelled"] == 0
        assert change(api, f"jobs/{old}", archived=False)["archived_at"] is None
        assert ids(api, "jobs") == [old, kept]

    def test_unfinished_job_is_not_archived(self, api):
        job = submit()
        detail = problem(api.patch(f"/v1/jobs/{job}", json={"archived": True}), 409)["detail"]
        assert detail == f"job {job} is queued: cancel it first, to archive it"

    def test_only_its_owner_and_admins_may(self, api):
        job = submit()
        for name, status in (("bob", 403), ("root", 200)):
            key = api_keys.create(name, admin=name == "root")
            headers = {"Authorization": f"Bearer {key}"}
            assert api.patch(f"/v1/jobs/{job}", json={"note": name}, headers=headers).status_code == status
        assert api.get(f"/v1/jobs/{job}").json()["note"] == "root"
        problem(api.patch("/v1/jobs/00000000-0000-7000-8000-000000000000", json={"note": "x"}), 404)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, ""),
            ({"name": ""}, "/name"),
            ({"name": "  "}, "/name"),
            ({"name": "x" * 201}, "/name"),
            ({"name": "a\nb"}, "/name"),
            ({"note": "x" * 10_001}, "/note"),
            ({"note": "a\u202eb"}, "/note"),
            ({"tags": {"a:b": "c"}}, "/tags/a:b"),
            ({"tags": {"a": ""}}, "/tags/a"),
            ({"tags": ["a"]}, "/tags"),
            ({"tags": None}, "/tags"),
            ({"archived": None}, "/archived"),
            ({"status": "succeeded"}, "/status"),
        ],
    )
    def test_invalid_changes_name_the_field(self, api, body, pointer):
        (error,) = problem(api.patch(f"/v1/jobs/{submit()}", json=body), 422)["errors"]
        assert error["pointer"] == pointer


class TestComparisons:
    def test_changes_show_at_once(self, ada):
        started = start(ada, tags={"study": "a"})
        path = f"comparisons/{started['id']}"
        assert show(ada, started)["tags"] == {"study": "a"}
        changed = change(ada, path, name="renamed", note="why", tags={"study": "b"})
        shown = show(ada, started)
        for name in ("name", "note", "tags"):
            assert shown[name] == changed[name]
        finish_all()
        assert ids(ada, "jobs", tag="study:b")  # the runs that were due after the change
        assert b"renamed" in ada.get(f"/v1/{path}/report").content
        assert change(ada, path, tags={})["tags"] == {}
        for body in ({"name": None}, {"name": ""}, {}):
            problem(ada.patch(f"/v1/{path}", json=body), 422)

    def test_archive_takes_the_jobs_that_only_it_needs(self, ada, bob):
        direct = ada.post("/v1/jobs", json=JOB).json()["id"]
        first = start(ada)
        finish_all()
        other = start(ada, optimizers=REQUEST["optimizers"], name="other")
        finish_all()
        assert job_ids(first) == job_ids(other)
        before = runs(ada)
        path = f"comparisons/{first['id']}"
        change(ada, path, archived=True)
        assert ids(ada, "comparisons") == [other["id"]]
        assert set(ids(ada, "comparisons", archived=True)) == {first["id"], other["id"]}
        assert runs(ada) == before  # the other comparison needs them
        change(ada, f"comparisons/{other['id']}", archived=True)
        assert runs(ada) < before
        assert runs(ada, archived=True) == before
        assert ids(ada, "jobs") == [direct]
        assert set(ids(ada, "jobs", comparison=other["id"])) == {str(job) for job in job_ids(other)}
        verdict = show(ada, other)
        assert (verdict["status"], verdict["progress"]["succeeded"]) == ("succeeded", 8)
        assert ada.get("/v1/overview").json()["comparisons"] == []
        groups = ada.get("/v1/compare", params={"dataset": "digits", "model": "mlp"}).json()["groups"]
        assert [group["n"] for group in groups] == [1]  # the direct job
        change(ada, path, archived=False)
        assert runs(ada) == before  # the other one took them into the archive, but this one needs them, too
        change(ada, path, archived=True)
        assert runs(ada) < before
        change(ada, f"comparisons/{other['id']}", archived=False)
        assert runs(ada) == before
        assert problem(bob.patch(f"/v1/{path}", json={"archived": False}), 403)

    def test_running_comparison_is_not_archived(self, ada):
        path = f"/v1/comparisons/{start(ada)['id']}"
        assert "is running: cancel it first" in problem(ada.patch(path, json={"archived": True}), 409)["detail"]
