"""Comparisons over HTTP on the real database; jobs are claimed and finished as by a worker, with invented results."""

import json
import zlib
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import delete, func, select, text, update
from starlette.testclient import TestClient

from service import attempts, comparisons, data, db, keys, metrics, protocol
from service.app import create_app
from service.config import settings
from service.models import Comparison, ComparisonCell, Job, Worker
from service.requests import COMPARISON_EXAMPLE
from service.spec import ENGINE_VERSION, Reason, Summary
from workers import maintenance

LR = {"lr": {"log_uniform": [0.0003, 0.03]}}
REQUEST = {
    "name": "test",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}],
    "optimizers": [{"name": "adam", "space": LR}, {"name": "sgd", "params": {"lr": 0.1}}],
    "tuning": {"trials": 2},
    "seeds": 3,
}
ENVIRONMENT = {
    "torch": "2.14.1",
    "device_kind": "cpu",
    "device_name": "one",
    "engine_version": ENGINE_VERSION,
    "data_hash": "aa",
}

LIMITED = {"name": "digits", "params": {"limit": 100_000}}

WORKER = {"id": "w", "host": "here", "slots": 2, "devices": [{"kind": "cpu"}], "torch": "2.14.1"}


@pytest.fixture
def worker(empty):
    """A worker that is known to be up, beyond the short lease of tests; nothing runs but what a test says."""
    with db.transaction() as session:
        session.add(Worker(**WORKER, heartbeat_at=func.clock_timestamp() + timedelta(hours=1)))


@pytest.fixture
def ada(api, worker):
    return api


@pytest.fixture
def bob(worker):
    key = keys.create("bob")
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def score(spec) -> float:
    """Adam is better than SGD, by a little noise that is the same for the same spec."""
    noise = zlib.crc32(repr(sorted(spec.items())).encode()) % 1000 / 1e5
    return (0.9 if spec["optimizer"]["name"] == "adam" else 0.8) + noise


def finish_one(environment=ENVIRONMENT, reason=Reason.COMPLETED) -> UUID | None:
    with db.transaction() as session:
        claim = attempts.claim(session, "w", has_cuda=False)
        if claim is None:
            return None
        value = score(claim.spec)
        names = ["val_accuracy", "val_loss", *(["test_accuracy", "test_loss"] if claim.spec["evaluate_test"] else [])]
        summary = Summary(
            reason=reason, steps=39, epochs=3.0, train_seconds=1.0, total_seconds=1.5, parameters=100,
            metrics={name: value if name.endswith("accuracy") else 1 - value for name in names},
            best_step=39, target=None,
        )  # fmt: skip
        said = None if reason is Reason.ERROR else summary
        assert attempts.finish(session, claim, reason, summary=said, environment=environment, message="why\nthat is so")
        return claim.job_id


def advance():
    with db.transaction() as session:
        for comparison in comparisons.running(session):
            comparisons.advance_one(session, comparison)


def work(**how) -> int:
    """Finish jobs, and what follows from them, until nothing is left."""
    done = 0
    while True:
        advance()
        if finish_one(**how) is None:
            return done
        done += 1


def ask(api, **fields) -> dict:
    response = api.post("/v1/comparisons", json=REQUEST | fields)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/v1/comparisons/{response.json()['id']}"
    return response.json()


def show(api, comparison) -> dict:
    response = api.get(f"/v1/comparisons/{comparison['id']}")
    assert response.status_code == 200, response.text
    return response.json()


def job_ids(comparison, phase=None) -> set[UUID]:
    with db.transaction() as session:
        query = select(ComparisonCell.job_id).where(ComparisonCell.comparison_id == UUID(comparison["id"]))
        return set(session.scalars(query if phase is None else query.where(ComparisonCell.phase == phase)))


def specs(ids) -> list[dict]:
    with db.transaction() as session:
        return list(session.scalars(select(Job.spec).where(Job.id.in_(ids))))


class TestTheWay:
    def test_from_request_to_verdict(self, ada):
        started = ask(ada)
        assert (started["status"], started["progress"]["phase"]) == ("running", "tuning")
        assert started["progress"]["jobs"] == 2 + 3  # the trials, and what needs no tuning
        assert work() == 2 + 3 + 3
        ended = show(ada, started)
        assert (ended["status"], ended["progress"]["phase"], ended["progress"]["succeeded"]) == (
            "succeeded",
            "finished",
            8,
        )
        assert ended["tasks"][0]["verdict"]["best"] == "adam"
        assert ended["finished_at"] is not None
        assert ended["progress"]["seconds_used"] == 8 * 1.5

    def test_tuning_jobs_never_read_the_test_set_and_the_best_one_is_rerun(self, ada):
        started = ask(ada)
        work()
        trials = specs(job_ids(started, "tuning"))
        assert not any(spec["evaluate_test"] for spec in trials)
        best = max(trials, key=score)["optimizer"]
        reported = [spec for spec in specs(job_ids(started, "report")) if spec["optimizer"]["name"] == "adam"]
        assert [spec["optimizer"] for spec in reported] == [best] * 3
        assert not {spec["seed"] for spec in reported} & {spec["seed"] for spec in trials}

    def test_advancing_too_often_changes_nothing(self, ada):
        started = ask(ada)
        for _ in range(3):
            advance()
        assert len(job_ids(started)) == 5

    def test_later_looks_only_while_undecided(self, ada):
        started = ask(ada, seeds={"max": 20, "looks": [5, 20]})
        assert work() == 2 + 5 + 5
        ended = show(ada, started)
        assert ended["tasks"][0]["verdict"]["decided"]
        assert ended["progress"]["jobs_at_most"] == 2 + 20 + 20

    def test_repeated_with_the_same_key_is_one(self, ada):
        answers = [
            ada.post("/v1/comparisons", json=REQUEST, headers={"Idempotency-Key": "once"}).json() for _ in range(2)
        ]
        assert answers[0] == answers[1]
        assert len(ada.get("/v1/comparisons").json()["data"]) == 1
        other = ada.post("/v1/comparisons", json=REQUEST | {"seeds": 4}, headers={"Idempotency-Key": "once"})
        assert other.status_code == 422

    def test_lists_by_page_and_jobs_by_comparison(self, ada):
        first, second = ask(ada), ask(ada, seeds=4)
        page = ada.get("/v1/comparisons", params={"limit": 1}).json()
        assert [one["id"] for one in page["data"]] == [second["id"]]
        rest = ada.get("/v1/comparisons", params={"after": page["next"]}).json()
        assert [one["id"] for one in rest["data"]] == [first["id"]]
        listed = ada.get("/v1/jobs", params={"comparison": first["id"]}).json()["data"]
        assert {UUID(job["id"]) for job in listed} == job_ids(first)

    def test_tags_and_priority_reach_the_jobs(self, ada):
        started = ask(ada, tags={"study": "x"}, priority=7)
        found = ada.get("/v1/jobs", params={"tag": "study:x"}).json()["data"]
        assert {UUID(job["id"]) for job in found} == job_ids(started)
        assert {job["priority"] for job in found} == {7}


class TestDryRun:
    def test_says_what_would_be_run_and_runs_nothing(self, ada):
        response = ada.post(
            "/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"seeds": {"max": 9, "looks": [3, 9]}}
        )
        assert response.status_code == 200, response.text
        planned = response.json()
        assert (planned["jobs_at_least"], planned["jobs_at_most"], planned["reused"]) == (2 + 6, 2 + 18, 0)
        assert planned["seconds_at_most"] is None
        assert len(planned["plan"]["nominal_p"]) == 2
        assert "never read the test set" in planned["methods"]
        assert ada.get("/v1/jobs").json()["data"] == []

    def test_estimates_from_earlier_runs(self, ada):
        ask(ada)
        work()
        tasks = [REQUEST["tasks"][0] | {"budget": {"epochs": 30}}]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        for one in planned["estimates"]:
            assert one["seconds"] == pytest.approx(1.5 / 39 * 390)
            assert one["runs"] > 0
        assert planned["seconds_at_most"] == pytest.approx(15.0 * 8)

    def test_an_optimizer_that_never_ran_is_as_slow_as_the_slowest(self, ada):
        ask(ada)
        work()
        optimizers = ["adam", "lion"]
        planned = ada.post(
            "/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"optimizers": optimizers, "tuning": None}
        ).json()
        assert [(one["optimizer"].split()[0], one["runs"] > 0) for one in planned["estimates"]] == [
            ("adam", True),
            ("lion", False),
        ]
        assert planned["estimates"][1]["seconds"] == pytest.approx(1.5)

    def test_each_task_by_runs_of_its_own_kind(self, ada):
        ask(ada)
        work()
        tasks = [REQUEST["tasks"][0] | {"batch_size": size} for size in (32, 64)]
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST | {"tasks": tasks}).json()
        assert [one["runs"] > 0 for one in planned["estimates"]] == [False, False, True, True]

    def test_counts_what_is_there(self, ada):
        ask(ada)
        work()
        planned = ada.post("/v1/comparisons", params={"dry_run": True}, json=REQUEST).json()
        assert planned["reused"] == 5


class TestReuse:
    def test_finished_runs_of_somebody_else_are_taken_and_named(self, ada, bob):
        first = ask(ada)
        work()
        second = ask(bob)
        assert second["status"] == "succeeded"
        assert job_ids(second) == job_ids(first)
        assert {one["user"] for one in second["reused"]} == {"ada"}
        assert len(second["reused"]) == second["progress"]["reused"] == 8
        assert second["progress"]["seconds_used"] == 0
        assert show(bob, second)["tasks"][0]["verdict"] == show(ada, first)["tasks"][0]["verdict"]

    def test_only_what_is_missing_is_run(self, ada):
        ask(ada)
        work()
        more = ask(ada, seeds=5)
        assert work() == 4
        assert show(ada, more)["progress"]["reused"] == 8

    def test_runs_under_way_are_shared(self, ada, bob):
        first, second = ask(ada), ask(bob)
        assert job_ids(second) == job_ids(first)
        assert work() == 8
        assert show(ada, first)["status"] == show(bob, second)["status"] == "succeeded"

    def test_a_job_submitted_by_itself_is_taken_too(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1}
        alone = ada.post("/v1/jobs", json=job | {"target": {"value": 0.9}, "log_every_steps": 3}).json()["id"]
        while finish_one():
            pass
        assert UUID(alone) in job_ids(ask(ada))

    @pytest.mark.parametrize("is_running", [False, True])
    def test_one_under_way_whose_device_can_be_only_one_kind(self, ada, is_running):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1, "device": "auto"}
        alone = UUID(ada.post("/v1/jobs", json=job).json()["id"])
        if is_running:
            with db.transaction() as session:
                assert attempts.claim(session, "w", has_cuda=False).job_id == alone
        assert alone in job_ids(ask(ada))
        with db.transaction() as session:  # from now on it depends on who takes it
            beat = func.clock_timestamp() + timedelta(hours=1)
            session.add(Worker(**WORKER | {"id": "gpu", "devices": [{"kind": "cuda"}]}, heartbeat_at=beat))
        assert alone not in job_ids(ask(ada, priority=1))

    def test_where_there_is_a_target_runs_have_watched_for_it(self, ada):
        watched = [REQUEST["tasks"][0] | {"target": {"value": value}} for value in (0.5, 0.6)]
        first, other, again = (ask(ada, tasks=[task]) for task in (watched[0], watched[1], watched[0]))
        assert not job_ids(first, "report") & job_ids(other, "report")
        assert job_ids(first) == job_ids(again)

    @pytest.mark.parametrize(
        "changes", [{"torch": "2.11.0"}, {"engine_version": ENGINE_VERSION - 1}, {"device_kind": "cuda"}]
    )
    def test_runs_of_another_engine_torch_or_device_are_not(self, ada, changes):
        ask(ada)
        work(environment=ENVIRONMENT | changes)
        assert ask(ada)["progress"]["reused"] == 0

    def test_runs_on_data_that_was_replaced_are_not(self, ada):
        ask(ada)
        work()
        with db.transaction() as session:
            session.execute(update(Job).values(data_stamp="another"))
        assert ask(ada)["progress"]["reused"] == 0

    def test_not_where_it_is_not_wanted(self, ada):
        first = ask(ada)
        work()
        second = ask(ada, reuse=False)
        assert not job_ids(first) & job_ids(second)

    def test_own_runs_are_not_reused_ones(self, ada, bob):
        rates = [0.001, 0.01]
        fixed = [{"name": "adam", "params": {"lr": rate}} for rate in rates]  # one of them is what the tuning chooses
        both = {
            "optimizers": [*fixed, {"name": "adam", "label": "tuned", "space": {"lr": {"choice": rates}}}],
            "tuning": {"trials": 2, "method": "grid"},
        }
        mine = ask(ada, **both)
        assert work() == 2 + 2 * 3
        ended = show(ada, mine)
        assert (ended["progress"]["jobs"], ended["progress"]["reused"], ended["reused"]) == (2 + 3 * 3, 0, [])
        again = show(bob, ask(bob, **both))
        assert (again["progress"]["reused"], again["progress"]["seconds_used"]) == (2 + 3 * 3, 0)

    def test_the_files_are_looked_at_once_for_all_jobs(self, ada, monkeypatch):
        looks = []
        stamp = data.stamp
        monkeypatch.setattr(data, "stamp", lambda *which: looks.append(which) or stamp(*which))
        ask(ada, seeds=50)
        assert len(looks) == 2  # to find runs, and to submit what is missing

    def test_another_try_is_of_the_data_that_are_there_now(self, ada):
        job = ada.post("/v1/jobs", json=REQUEST["tasks"][0] | {"optimizer": "adam"}).json()["id"]
        ada.post(f"/v1/jobs/{job}/cancel")
        with db.transaction() as session:
            now = session.scalar(update(Job).values(data_stamp="another").returning(Job.data_stamp))
        again = ada.post(f"/v1/jobs/{job}/retry").json()["id"]
        with db.transaction() as session:
            assert session.get(Job, UUID(again)).data_stamp == data.stamp("digits", settings().data) != now


class TestDeadWorkers:
    """One that was killed has not said that it stopped."""

    @pytest.fixture
    def dead(self, worker):
        """A worker with a GPU and another torch, silent for longer than a lease."""
        silent_since = func.clock_timestamp() - timedelta(seconds=settings().lease_seconds + 1)
        with db.transaction() as session:
            gpu = {"devices": [{"kind": "cuda"}], "torch": "2.0.0"}
            session.add(Worker(**WORKER | {"id": "dead"} | gpu, heartbeat_at=silent_since))

    def test_what_they_had_is_not_waited_for(self, ada, dead):
        assert {spec["device"] for spec in specs(job_ids(ask(ada)))} == {"cpu"}

    def test_runs_with_what_they_had_are_not_reused(self, ada, dead):
        ask(ada)
        work(environment=ENVIRONMENT | {"torch": "2.0.0"})
        assert ask(ada)["progress"]["reused"] == 0

    def test_where_there_is_no_other_the_last_job_says_what_is_current(self, ada, dead):
        with db.transaction() as session:
            session.execute(delete(Worker).where(Worker.id == "w"))
        first = ask(ada)
        assert {spec["device"] for spec in specs(job_ids(first))} == {"auto"}
        work()
        assert job_ids(ask(ada)) == job_ids(first)

    def test_not_with_a_budget_in_seconds(self, ada):
        tasks = [{"dataset": "digits", "model": "mlp", "budget": {"seconds": 1}}]
        first, second = ask(ada, tasks=tasks), ask(ada, tasks=tasks)
        assert not job_ids(first) & job_ids(second)

    def test_a_shared_run_that_is_lost_is_run_again(self, ada, bob):
        ask(ada)
        second = ask(bob)
        finish_one(reason=Reason.OUT_OF_MEMORY)
        lost = {job["id"] for job in ada.get("/v1/jobs", params={"status": "failed"}).json()["data"]}
        advance()
        assert not {str(job) for job in job_ids(second)} & lost
        work()
        assert show(bob, second)["status"] == "succeeded"

    def test_what_decides_a_result_decides_the_fingerprint(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": "adam"}
        variants = [
            {}, {"seed": 1}, {"batch_size": 32}, {"precision": "bf16"}, {"budget": {"epochs": 4}},
            {"evaluate_test": False}, {"target": {"value": 0.5}, "stop_at_target": True}, {"gradient_clip": 1.0},
            {"eval_every_steps": 5},
        ]  # fmt: skip
        same = [{"device": "cpu"}, {"log_every_steps": 1}, {"diagnostics_every_steps": 5}, {"target": {"value": 0.5}}]
        ids = [ada.post("/v1/jobs", json=job | fields).json()["id"] for fields in [*variants, *same]]
        with db.transaction() as session:
            prints = dict(session.execute(select(Job.id, Job.fingerprint)).all())
        found = [prints[UUID(id_)] for id_ in ids]
        assert len(set(found[: len(variants)])) == len(variants)
        assert set(found[len(variants) :]) == {found[0]}


class TestCancel:
    def test_ends_the_jobs_that_nobody_else_needs(self, ada, bob):
        mine, other = ask(ada, seeds=5), ask(bob)
        answer = ada.post(f"/v1/comparisons/{mine['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        with db.transaction() as session:
            statuses = dict(session.execute(select(Job.id, Job.status)).all())
        assert {statuses[job] for job in job_ids(other)} == {"queued"}
        assert {statuses[job] for job in job_ids(mine) - job_ids(other)} == {"cancelled"}
        work()
        assert show(bob, other)["status"] == "succeeded"
        assert show(ada, mine)["status"] == "cancelled"

    def test_leaves_a_job_that_was_submitted_by_itself(self, ada):
        job = REQUEST["tasks"][0] | {"optimizer": {"name": "sgd", "params": {"lr": 0.1}}, "seed": 1, "device": "cpu"}
        alone = ada.post("/v1/jobs", json=job).json()["id"]
        mine = ask(ada)
        assert UUID(alone) in job_ids(mine)
        ada.post(f"/v1/comparisons/{mine['id']}/cancel")
        assert ada.get(f"/v1/jobs/{alone}").json()["status"] == "queued"

    def test_the_last_one_to_cancel_ends_them_all(self, ada, bob):
        mine, other = ask(ada), ask(bob)
        for api, comparison in ((ada, mine), (bob, other)):
            api.post(f"/v1/comparisons/{comparison['id']}/cancel")
        assert {job["status"] for job in ada.get("/v1/jobs").json()["data"]} == {"cancelled"}

    def test_again_changes_nothing_and_afterwards_is_a_conflict(self, ada, bob):
        mine = ask(ada)
        assert bob.post(f"/v1/comparisons/{mine['id']}/cancel").status_code == 403
        assert [ada.post(f"/v1/comparisons/{mine['id']}/cancel").status_code for _ in range(2)] == [202, 202]
        done = ask(ada)
        work()
        answer = ada.post(f"/v1/comparisons/{done['id']}/cancel")
        assert (answer.status_code, answer.json()["current_status"]) == (409, "succeeded")

    def test_an_own_job_that_somebody_cancels_is_missing_and_named(self, ada):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None)
        job = sorted(job_ids(mine))[0]
        ada.post(f"/v1/jobs/{job}/cancel")
        work()
        ended = show(ada, mine)
        assert ended["status"] == "failed"
        assert [one["job"] for one in ended["tasks"][0]["missing"]] == [str(job)]
        assert ended["verdict"][0].startswith("No verdict: 1 of 3 runs of ")
        assert " is missing (cancelled). 2 of 3 seeds have all their runs" in ended["verdict"][0]
        assert ended["tasks"][0]["pairs"][0]["p"] is None
        table = ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": "latex"}).text
        assert "Nothing is bold, because planned runs are missing." in table

    def test_what_is_missing_alone_is_run_when_asked_again(self, ada):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None)
        ada.post(f"/v1/jobs/{sorted(job_ids(mine))[0]}/cancel")
        work()
        again = ask(ada, optimizers=["adam", "sgd"], tuning=None)
        assert work() == 1
        assert show(ada, again)["tasks"][0]["verdict"]["decided"]

    @pytest.mark.parametrize("seeds", [6, {"max": 6, "looks": [3, 6]}, {"max": 6, "looks": "any"}])
    def test_there_is_no_verdict_whenever_its_last_job_ends(self, ada, seeds):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=seeds, reuse=False)
        for _ in range(5):
            finish_one()
            advance()
        with db.transaction() as session:
            under_way = attempts.claim(session, "w", has_cuda=False)
        ada.post(f"/v1/comparisons/{mine['id']}/cancel")
        before = show(ada, mine)
        if under_way is not None:
            with db.transaction() as session:
                assert attempts.finish(session, under_way, Reason.CANCELLED)
        for ended in (before, show(ada, mine)):
            (task,) = ended["tasks"]
            assert ended["verdict"] == ["No verdict: the comparison was cancelled with 5 of 12 reported runs."]
            assert not task["verdict"]["decided"]
            assert task["pairs"][0]["p"] is task["pairs"][0]["interval"] is None
            assert sum(group["n"] for group in task["groups"]) == 5
        table = ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": "latex"}).text
        assert "textbf" not in table
        assert "Nothing is bold, because the comparison was cancelled." in table
        assert "The comparison was cancelled with 5 of 12 reported runs: nothing was tested." in table


class TestFaults:
    def test_failed_runs_are_named_and_the_rest_is_answered(self, ada):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        finish_one(reason=Reason.ERROR)
        work()
        ended = show(ada, mine)
        assert (ended["status"], ended["progress"]["failed"]) == ("failed", 1)
        (missing,) = ended["tasks"][0]["missing"]
        assert missing["why"] == "error: that is so"
        assert ended["tasks"][0]["pairs"][0]["n"] == 3

    def test_diverged_runs_are_results(self, ada):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        finish_one(reason=Reason.DIVERGED)
        work()
        ended = show(ada, mine)
        assert (ended["status"], ended["progress"]["diverged"]) == ("succeeded", 1)
        assert ended["tasks"][0]["pairs"][0]["n"] == 4
        assert "diverged and count as 10.0 %" in ended["verdict"][0]

    def test_scores_that_cannot_be_added_up_are_refused_once_and_for_all(self, ada):
        mine = ask(ada)
        work()
        plan = "jsonb_set(plan, '{tasks,0,diverged_score}', '1.7e308')"
        with db.transaction() as session:
            session.execute(text(f"UPDATE comparisons SET plan = {plan} WHERE id = '{mine['id']}'"))
        comparisons._answers.clear()
        for path in ("", "/report"):
            answer = ada.get(f"/v1/comparisons/{mine['id']}{path}")
            assert answer.status_code == 409, answer.text
            assert "ask for the comparison anew" in answer.json()["detail"]

    def test_losses_too_large_to_be_added_up_have_diverged(self, ada):
        mine = ask(ada, optimizers=["adam", "sgd"], tuning=None, metric="test_loss")
        work()
        huge = "jsonb_set(summary, '{metrics,test_loss}', '1.7e308')"
        with db.transaction() as session:
            session.execute(text(f"UPDATE jobs SET summary = {huge} WHERE optimizer = 'sgd'"))
        comparisons._answers.clear()
        assert [group["diverged"] for group in show(ada, mine)["tasks"][0]["groups"]] == [0, 3]

    @pytest.mark.parametrize("plan", ["'{}'", "jsonb_set(plan, '{tasks,0,spec,model,name}', '\"lenet\"')"])
    def test_one_that_cannot_go_on_ends_and_says_why(self, ada, plan):
        broken, other = ask(ada), ask(ada, seeds=4, reuse=False)
        with db.transaction() as session:
            session.execute(text(f"UPDATE comparisons SET plan = {plan} WHERE id = '{broken['id']}'"))
            session.execute(text("DELETE FROM comparison_cells WHERE phase = 'report'"))
        maintenance.advance_comparisons()
        assert len(job_ids(other, "report")) == 4
        (listed,) = (one for one in ada.get("/v1/comparisons").json()["data"] if one["id"] == broken["id"])
        assert listed["status"] == "failed"
        with db.transaction() as session:
            message = session.get(Comparison, UUID(broken["id"])).message
            jobs_left = session.scalars(select(Job.status).where(Job.id.in_(job_ids(broken)))).all()
        assert "of another version of kotrain" in message
        assert set(jobs_left) == {"cancelled"}
        for path in ("", "/report"):
            answer = ada.get(f"/v1/comparisons/{broken['id']}{path}")
            assert (answer.status_code, answer.json()["message"]) == (409, message)
            assert "ask for the comparison anew" in answer.json()["detail"]

    def test_an_error_of_ours_ends_it_too(self, ada, monkeypatch):
        mine = ask(ada)
        monkeypatch.setattr(protocol, "wanted", lambda *_: 1 / 0)
        maintenance.advance_comparisons()
        monkeypatch.undo()
        ended = show(ada, mine)
        assert (ended["status"], ended["message"]) == ("failed", "ZeroDivisionError: division by zero")

    def test_a_database_that_is_away_ends_nothing(self, ada, monkeypatch):
        mine = ask(ada)

        def away(*_):
            raise psycopg.OperationalError("away")

        monkeypatch.setattr(protocol, "wanted", away)
        with pytest.raises(psycopg.OperationalError):
            maintenance.advance_comparisons()
        monkeypatch.undo()
        assert show(ada, mine)["status"] == "running"


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"optimizers": ["adam", "adam"], "tuning": None}, "/optimizers/1"),
            ({"optimizers": [{"name": "adam", "space": {}}, "sgd"]}, "/optimizers/0/space"),
            ({"tasks": [{"dataset": "imagenet", "model": "resnet18", "budget": {"epochs": 1}}]}, "/tasks/0/dataset"),
            ({"tasks": [REQUEST["tasks"][0] | {"batch_size": 5000}]}, "/tasks/0/batch_size"),
            ({"tasks": [REQUEST["tasks"][0] | {"device": "cuda"}]}, "/tasks/0/device"),
            ({"metric": "accuracy"}, "/metric"),
            ({"tasks": [REQUEST["tasks"][0] | {"budget": {}}]}, "/tasks/0/budget"),
            ({"name": "a\x00b"}, "/name"),
            ({"diverged_score": 1e999}, "/diverged_score"),
            ({"diverged_score": 1.7e308}, "/diverged_score"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"eval_every_steps": 5}]}, "/tasks/1"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"budget": {"steps": 39}}]}, "/tasks/1"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"dataset": LIMITED}]}, "/tasks/1"),
            ({"tags": {"a:b": "c"}}, "/tags/a:b"),
        ],
    )
    def test_names_the_field(self, ada, fields, pointer):
        for query in ({}, {"dry_run": True}):
            response = ada.post("/v1/comparisons", params=query, content=json.dumps(REQUEST | fields),
                                headers={"Content-Type": "application/json"})  # fmt: skip
            assert response.status_code == 422, response.text
            assert any(error["pointer"].startswith(pointer) for error in response.json()["errors"]), response.json()

    def test_a_grid_beyond_the_configured_size(self, ada, monkeypatch):
        monkeypatch.setenv("KOTRAIN_MAX_COMPARISON_JOBS", "7")
        comparisons.settings.cache_clear()
        response = ada.post("/v1/comparisons", json=REQUEST)
        comparisons.settings.cache_clear()
        assert response.status_code == 422
        assert "up to 8 jobs, and at most 7 are allowed" in response.json()["detail"]

    @pytest.mark.parametrize("path", ["", "/cancel", "/report"])
    def test_what_does_not_exist(self, ada, path):
        method = ada.post if path == "/cancel" else ada.get
        unknown = "0198c0de-0000-7000-8000-000000000000"
        assert method(f"/v1/comparisons/{unknown}{path}").status_code == 404
        assert method(f"/v1/comparisons/nonsense{path}").status_code == 422

    def test_reports_of_an_unknown_format(self, ada):
        mine = ask(ada)
        response = ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": "pdf"})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "format"

    def test_without_a_key(self, ada):
        ada.headers.pop("Authorization")
        assert ada.post("/v1/comparisons", json=REQUEST).status_code == 401


@pytest.mark.parametrize(
    ("format", "media_type", "word"),
    [
        ("html", "text/html", "adam"),
        ("csv", "text/csv", "adam"),
        ("latex", "tex", "toprule"),
        ("json", "json", "verdict"),
    ],
)
def test_reports(ada, format, media_type, word):
    mine = ask(ada)
    for _ in range(2):  # while it runs, and once it is over
        response = ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": format})
        assert response.status_code == 200
        assert media_type in response.headers["Content-Type"]
        assert word in response.text
        work()


@pytest.mark.parametrize(("format", "reads"), [("html", 1), ("csv", 0), ("latex", 0), ("json", 0)])
def test_only_the_page_reads_curves(ada, monkeypatch, format, reads):
    read = []
    monkeypatch.setattr(metrics, "read", lambda *which: read.append(which) or {})
    mine = ask(ada)
    assert ada.get(f"/v1/comparisons/{mine['id']}/report", params={"format": format}).status_code == 200
    assert len(read) == reads


def test_answers_are_kept_by_their_size(ada, monkeypatch):
    monkeypatch.setattr(comparisons, "MOST_KEPT", 20)
    comparisons._answers.clear()
    for seeds in (3, 4, 5):  # of 5, 6 and 7 jobs and one pair each
        show(ada, ask(ada, seeds=seeds))
    assert [kept.progress.jobs for kept in comparisons._answers.values()] == [6, 7]
    monkeypatch.setattr(comparisons, "MOST_KEPT", 3)
    assert show(ada, ask(ada, seeds=6))["progress"]["jobs"] == 8
    assert not comparisons._answers


def test_of_a_comparison_only_its_last_answer_is_kept(ada):
    comparisons._answers.clear()
    mine = ask(ada)
    for _ in range(3):
        finish_one()
        show(ada, mine)
    assert len(comparisons._answers) == 1


def test_the_example_of_the_documentation_works(ada):
    response = ada.post("/v1/comparisons", json=COMPARISON_EXAMPLE)
    assert response.status_code == 202
    examples = ada.get("/openapi.json").json()["components"]["schemas"]["ComparisonRequest"]["examples"]
    assert examples == [COMPARISON_EXAMPLE]


class TestLeaderboard:
    def test_ranks_optimizers_within_each_setting(self, ada):
        ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=4)
        ask(ada, optimizers=["adam", "sgd"], tuning=None, seeds=2, tasks=[REQUEST["tasks"][0] | {"batch_size": 32}])
        work()
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert [board["runs"] for board in found["boards"]] == [8, 4]
        first, second = found["boards"][0]["standings"]
        assert (first["label"], first["n"], first["behind_first"]) == ("adam lr=0.001", 4, None)
        assert (second["label"], second["rank"]) == ("sgd lr=0.1", 2)
        assert second["behind_first"] == pytest.approx(-0.1, abs=0.02)
        assert second["p_behind"] < 0.001
        assert found["boards"][0]["setting"]["batch_size"] == 64

    def test_tuning_runs_have_no_test_accuracy_and_are_not_in_it(self, ada):
        ask(ada)
        work()
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert sum(board["runs"] for board in found["boards"]) == 6

    def test_nothing_yet(self, ada):
        found = ada.get("/v1/leaderboard", params={"dataset": "digits", "model": "mlp"}).json()
        assert found["boards"] == []

    @pytest.mark.parametrize(
        "query",
        [
            {"dataset": "x", "model": "mlp"},
            {"dataset": "digits"},
            {"dataset": "digits", "model": "mlp", "metric": "lr"},
        ],
    )
    def test_a_wrong_question(self, ada, query):
        assert ada.get("/v1/leaderboard", params=query).status_code == 422


def test_the_stored_comparison_survives_a_restart_of_nothing_but_its_rows(ada):
    """All state is in the rows: another process goes on from there."""
    mine = ask(ada)
    with db.transaction() as session:
        session.execute(text("DELETE FROM comparison_cells WHERE phase = 'report'"))
    work()
    assert show(ada, mine)["status"] == "succeeded"
