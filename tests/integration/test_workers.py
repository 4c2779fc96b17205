"""The list of workers, and the overview of queue, slots and comparisons."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import func, text, update

from service.accounts import api_keys
from service.comparisons import lifecycle
from service.jobs import actions
from service.operations import overview
from service.storage import database
from service.storage.tables import Comparison, Worker
from tests.connections import statements
from tests.integration.comparisons.comparison_calls import finish_all, start
from tests.integration.comparisons.conftest import worker  # noqa: F401 (a fixture)
from tests.integration.job_calls import claim, do, submit, wait_until_leases_count

GPU = {"kind": "cuda", "name": "H100", "memory_bytes": 85_899_345_920}


def add_worker(id_, *, silent_for=0.0, stopped=False, slots=2, started_ago=0.0):
    if silent_for > 0:
        wait_until_leases_count()
    now = func.clock_timestamp()
    with database.transaction() as session:
        session.add(
            Worker(
                id=id_,
                host="lab",
                slots=slots,
                devices=[GPU],
                torch="2.14.1",
                started_at=now - timedelta(seconds=started_ago),
                heartbeat_at=now - timedelta(seconds=silent_for),
                stopped_at=now if stopped else None,
            )
        )


def up(id_, **fields):
    add_worker(id_, silent_for=-3600, **fields)  # in the future, because tests use a short lease


class TestWorkers:
    def test_states_up_stopped_and_lost(self, api):
        up("up", started_ago=5)
        add_worker("stopped", stopped=True, started_ago=10)
        add_worker("lost", silent_for=60, started_ago=100)
        add_worker("of yesterday", silent_for=86_500, started_ago=0)
        workers = api.get("/v1/workers").json()["workers"]
        assert [(row["id"], row["status"]) for row in workers] == [
            ("up", "up"),
            ("stopped", "stopped"),
            ("lost", "lost"),
        ]
        assert workers[0]["devices"] == [GPU]
        assert (workers[0]["host"], workers[0]["slots"], workers[0]["torch"]) == ("lab", 2, "2.14.1")
        assert workers[0]["stopped_at"] is None
        assert workers[1]["stopped_at"] is not None

    def test_running_jobs_are_listed(self, api):
        up("w1")
        up("w2", started_ago=60)
        ids = [submit() for _ in range(3)]
        claim("w1"), claim("w2"), claim("w2")
        first, second = api.get("/v1/workers").json()["workers"]
        assert [job["job"] for job in first["running"]] == [str(ids[0])]
        assert [job["job"] for job in second["running"]] == [str(ids[1]), str(ids[2])]
        job = first["running"][0]
        assert (job["user"], job["optimizer"], job["dataset"], job["model"]) == ("ada", "adam", "digits", "mlp")
        assert job["optimizer_label"] == "adam"
        assert (job["step"], job["total_steps"]) == (0, None)

    def test_no_workers(self, api):
        assert api.get("/v1/workers").json() == {"workers": []}


class TestOverview:
    def test_empty_database(self, api):
        answer = api.get("/v1/overview").json()
        assert answer == {
            "jobs": dict.fromkeys(["queued", "running", "succeeded", "failed", "cancelled"], 0),
            "ended": dict.fromkeys(["succeeded", "failed", "cancelled"], 0),
            "queue": [],
            "slots": {"total": 0, "busy": 0},
            "comparisons": [],
        }

    def test_waiting_users_and_running_jobs(self, api):
        api_keys.create("bob")
        up("w", slots=3)
        add_worker("lost", silent_for=60, slots=8)
        submit("ada"), claim("w")
        submit("bob"), submit("bob"), submit("ada")
        ended = [submit("ada") for _ in range(2)]
        do(actions.cancel_many, ended)
        with database.transaction() as session:
            session.execute(
                text("UPDATE jobs SET finished_at = finished_at - interval '25 hours' WHERE id = :id"),
                {"id": ended[0]},
            )
        answer = api.get("/v1/overview").json()
        assert answer["jobs"] == {"queued": 3, "running": 1, "succeeded": 0, "failed": 0, "cancelled": 2}
        assert answer["ended"] == {"succeeded": 0, "failed": 0, "cancelled": 1}
        assert answer["queue"] == [
            {"user": "bob", "queued": 2, "running": 0},
            {"user": "ada", "queued": 1, "running": 1},
        ]
        assert answer["slots"] == {"total": 3, "busy": 1}

    def test_jobs_of_the_last_day_are_read_through_an_index(self, api):
        """So that older jobs are not read, however many exist."""
        with statements() as executed:
            do(overview.overview)
        ((statement, parameters),) = [
            query for query in executed if "finished_at" in query[0] and "FROM jobs" in query[0]
        ]
        with database.transaction() as session:
            for switch in ("seqscan", "bitmapscan"):  # the planner prefers them for a table this small
                session.execute(text(f"SET LOCAL enable_{switch} = off"))
            lines = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
            plan = "\n".join(lines)
        assert re.search(r"jobs_status_finished.*\n +Index Cond:.*finished_at >=", plan), plan

    @pytest.mark.usefixtures("worker")
    def test_newest_comparisons_and_their_verdicts(self, api):
        mine = [start(api, name=f"number {number}", seeds=3 + number) for number in range(6)]
        before = api.get("/v1/overview").json()["comparisons"]
        assert [comparison["name"] for comparison in before] == [f"number {number}" for number in (5, 4, 3, 2, 1)]
        assert (before[0]["ended"], before[0]["status"], before[0]["user"]) == (0, "running", "ada")
        finish_all()
        after = api.get("/v1/overview").json()["comparisons"][0]
        whole = api.get(f"/v1/comparisons/{mine[5]['id']}").json()
        assert after["verdict"] == whole["verdict"]
        assert (after["jobs"], after["ended"]) == (whole["progress"]["jobs"], whole["progress"]["jobs"])
        assert after["status"] == "succeeded"

    @pytest.mark.usefixtures("worker")
    def test_unreadable_comparison_does_not_hide_others(self, api):
        start(api, name="good")
        broken = start(api, name="of a later version")
        with database.transaction() as session:
            session.execute(update(Comparison).where(Comparison.id == broken["id"]).values(plan={}))
        lifecycle._answers.clear()  # as after a restart
        comparisons = api.get("/v1/overview").json()["comparisons"]
        assert [comparison["name"] for comparison in comparisons] == ["of a later version", "good"]
        assert "is of another version of kotrain" in comparisons[0]["verdict"][0]


@pytest.mark.parametrize("path", ["/v1/workers", "/v1/overview"])
def test_key_is_required(api, path):
    assert api.get(path, headers={"Authorization": ""}).status_code == 401
