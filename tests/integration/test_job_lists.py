"""Lists of jobs: filters, order, search, counts, and actions on many jobs."""

from uuid import UUID, uuid4

import pytest

from service.accounts import api_keys
from service.jobs import actions, outcomes
from service.specs.states import Reason
from tests.integration.job_calls import claim, do, load, submit
from tests.integration.test_api import problem


def listed(api, **query):
    response = api.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return [UUID(job["id"]) for job in response.json()["data"]]


@pytest.fixture
def bob(api):
    return {"Authorization": f"Bearer {api_keys.create('bob')}"}


class TestStatus:
    @pytest.fixture
    def ids(self, api):
        """One job that is running, one queued, one cancelled."""
        job_ids = [submit() for _ in range(3)]
        claim()
        do(actions.cancel_many, job_ids[2:])
        return dict(zip(("running", "queued", "cancelled"), job_ids, strict=True))

    @pytest.mark.parametrize("names", [["queued"], ["running", "queued"], ["cancelled", "failed"], ["succeeded"]])
    def test_filters_by_one_or_several_statuses(self, api, ids, names):
        assert set(listed(api, status=",".join(names))) == {ids[name] for name in names if name in ids}

    @pytest.mark.parametrize("status", ["runing", "queued,", "", "queued, running"])
    def test_unknown_statuses_are_named(self, api, status):
        (error,) = problem(api.get("/v1/jobs", params={"status": status}), 422)["errors"]
        assert error["pointer"] == "status"
        assert "of queued, running, succeeded, failed, cancelled" in error["detail"]


class TestSort:
    @pytest.mark.parametrize("sort", ["newest", "oldest"])
    def test_pages_continue_after_the_previous_one(self, api, sort):
        ids = [submit(seed=seed) for seed in range(5)]
        seen, after = [], {}
        while True:
            page = api.get("/v1/jobs", params={"limit": 2, "sort": sort, **after}).json()
            seen += [UUID(job["id"]) for job in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": page["next"]}
        assert seen == (ids if sort == "oldest" else ids[::-1])

    def test_unknown_order_is_refused(self, api):
        assert problem(api.get("/v1/jobs?sort=best"), 422)["errors"][0]["pointer"] == "sort"


class TestSearch:
    @pytest.fixture
    def ids(self, api, bob):
        return {
            "tagged": submit(tags={"study": "Warm_up 100"}),
            "ko": submit(optimizer="ko"),
            "of bob": submit("bob"),
        }

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("warm", {"tagged"}),
            ("WARM_UP", {"tagged"}),
            ("warm%", set()),
            ("warmxup", set()),
            ("_", {"tagged"}),
            ("%", set()),
            ("\\", set()),
            ("study", set()),  # a key
            ("ko", {"ko"}),
            ("adam", {"tagged", "of bob"}),
            ("ob", {"of bob"}),
            ("digit", {"tagged", "ko", "of bob"}),
            ("", {"tagged", "ko", "of bob"}),
            ("nothing", set()),
        ],
    )
    def test_finds_text_in_the_columns_of_the_list(self, api, ids, words, expected):
        assert set(listed(api, search=words)) == {ids[name] for name in expected}
        counted = api.get("/v1/jobs/counts", params={"search": words}).json()["counts"]
        assert counted["queued"] == len(expected)

    def test_combines_with_other_filters(self, api, ids):
        assert listed(api, search="adam", user="bob") == [ids["of bob"]]
        assert listed(api, search="adam", status="running") == []


class TestCounts:
    def test_counts_by_status(self, api, bob):
        submit(), submit(), submit("bob")
        claim()
        everything = {"queued": 2, "running": 1, "succeeded": 0, "failed": 0, "cancelled": 0}
        assert api.get("/v1/jobs/counts").json() == {"counts": everything}
        assert sum(api.get("/v1/jobs/counts?user=bob").json()["counts"].values()) == 1
        assert api.get("/v1/jobs/counts?status=running").json()["counts"]["queued"] == 0

    def test_counts_accept_no_paging(self, api):
        assert problem(api.get("/v1/jobs/counts?limit=5"), 422)["errors"][0]["pointer"] == "limit"


class TestActions:
    def act(self, api, action, ids, **options):
        response = api.post("/v1/jobs/actions", json={"action": action, "jobs": [str(id_) for id_ in ids]}, **options)
        assert response.status_code == 200, response.text
        return response.json()["outcomes"]

    def test_cancel_returns_an_outcome_per_job(self, api, bob):
        running, queued, ended = (submit() for _ in range(3))
        claimed = claim()
        do(actions.cancel_many, [ended])
        theirs, unknown = submit("bob"), uuid4()
        failed = submit(priority=1)
        do(outcomes.finish, claim(), Reason.ERROR, message="broken")
        requested = [unknown, queued, theirs, running, ended, failed, queued]
        answers = self.act(api, "cancel", requested)
        assert [UUID(answer["job"]) for answer in answers] == requested[:-1]
        assert [answer["done"] for answer in answers] == [False, True, False, True, True, False]
        assert [answer["detail"] for answer in answers if answer["detail"]] == [
            f"job {unknown} not found",
            f"job {theirs} belongs to bob",
            f"job {failed} has already failed",
        ]
        assert (load(queued).status, load(theirs).status) == ("cancelled", "queued")
        assert load(claimed.job_id).cancel_requested

    def test_retry_returns_an_outcome_per_job_and_creates_no_job_twice(self, api, bob):
        cancelled, queued, theirs = submit(), submit(), submit("bob")
        do(actions.cancel_many, [cancelled, theirs])
        first, second = (self.act(api, "retry", [theirs, cancelled, queued]) for _ in range(2))
        assert first == second
        assert [answer["done"] for answer in first] == [False, True, False]
        assert load(UUID(first[1]["new_job"])).retry_of == cancelled
        assert "only failed and cancelled jobs can be retried" in first[2]["detail"]
        assert len(listed(api)) == 4

    def test_admin_may_act_on_jobs_of_others(self, api):
        root = {"Authorization": f"Bearer {api_keys.create('root', admin=True)}"}
        (outcome,) = self.act(api, "cancel", [submit()], headers=root)
        assert outcome["done"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"action": "delete", "jobs": [str(UUID(int=1))]}, "/action"),
            ({"action": "cancel", "jobs": []}, "/jobs"),
            ({"action": "cancel", "jobs": ["seven"]}, "/jobs/0"),
            ({"action": "cancel", "jobs": [str(UUID(int=1))] * 501}, "/jobs"),
            ({"action": "cancel"}, "/jobs"),
        ],
    )
    def test_invalid_requests_name_the_field(self, api, body, pointer):
        assert problem(api.post("/v1/jobs/actions", json=body), 422)["errors"][0]["pointer"] == pointer
