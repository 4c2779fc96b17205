"""The comparison of stored jobs: `GET /v1/compare`."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from service.comparisons import stored_jobs
from service.comparisons.answers import CompareAnswer
from service.comparisons.stored_jobs import CompareQuery, compare
from service.errors import Invalid
from service.metrics import write
from service.specs.states import Reason
from service.specs.summary import Summary, TargetHit
from service.specs.training import TrainSpec
from service.storage import database
from service.storage.tables import Job, User
from tests.connections import statements

START = datetime(2026, 1, 1, tzinfo=UTC)
ADAM = {"name": "adam", "params": {"lr": 0.001}}
KO = {"name": "ko", "params": {"base": "adam", "lr": 0.001}}
ADAM_VALUES = [0.951, 0.949, 0.953, 0.947, 0.950]
KO_VALUES = [0.967, 0.966, 0.970, 0.962, 0.965]


@pytest.fixture
def session(empty):
    """A session that is rolled back after the test."""
    with Session(database.engine()) as session:
        yield session
        session.rollback()


@pytest.fixture
def store(session):
    return Store(session)


class Store:
    """Stores finished jobs as the worker leaves them."""

    def __init__(self, session):
        self.session = session
        self.users = {}
        self.count = 0

    def user(self, name):
        if name not in self.users:
            self.users[name] = User(name=name)
            self.session.add(self.users[name])
            self.session.flush()
        return self.users[name].id

    def job(self, optimizer, seed, value, *, hit=None, reason=Reason.COMPLETED, tags=None, user="compare-a", **fields):
        body = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}, "optimizer": optimizer, "seed": seed}
        spec = TrainSpec.model_validate_json(json.dumps(body | fields))
        self.count += 1
        summary = Summary(
            reason=reason,
            steps=90,
            epochs=3,
            train_seconds=1,
            total_seconds=2,
            parameters=10,
            metrics={"test_accuracy": value, "val_loss": 1 - value} if value is not None else {"val_loss": 0.1},
            best_step=90,
            target=hit,
        )
        job = Job(
            user_id=self.user(user),
            spec=spec.model_dump(mode="json"),
            dataset=spec.dataset.name,
            model=spec.model.name,
            optimizer=spec.optimizer.name,
            needs_cuda=False,
            tags={} if tags is None else tags,
            priority=0,
            max_failures=3,
            status=reason.status.value,
            reason=reason.value,
            environment={"device_kind": "cpu", "torch": "2.14.1"},
            summary=summary.model_dump(mode="json"),
            finished_at=START + timedelta(seconds=self.count),
        )
        self.session.add(job)
        self.session.flush()
        return job.id

    def study(self, **fields):
        for seed, (a, b) in enumerate(zip(ADAM_VALUES, KO_VALUES, strict=True)):
            self.job(ADAM, seed, a, **fields)
            self.job(KO, seed, b, **fields)


def ask(session, **fields):
    return compare(session, CompareQuery(**({"dataset": "digits", "model": "mlp"} | fields)))


def test_stored_jobs_get_a_verdict(session, store):
    store.study()
    store.job(ADAM, 7, None, evaluate_test=False)
    store.job(ADAM, 8, None, reason=Reason.DIVERGED)
    answer = ask(session)
    assert [(group.label, group.n, group.diverged) for group in answer.groups] == [
        ("ko soft (adam)", 5, 0),
        ("adam", 5, 1),
    ]
    assert answer.verdict.best == "ko soft (adam)"
    assert answer.pairs[0].difference == pytest.approx(0.016)
    assert answer.left_out.without_metric == 1
    assert answer.held_fixed["environment.torch"] == "2.14.1"


def test_largest_seed_is_supported(session, store):
    store.job(ADAM, 2**63 - 1, 0.95)
    assert [group.n for group in ask(session).groups] == [1]


def test_mixed_settings_are_refused_and_each_hint_helps(session, store):
    store.study()
    store.study(model={"name": "mlp", "params": {"init_scale": 0.1}}, tags={"study": "condensed"})
    with pytest.raises(Invalid) as caught:
        ask(session)
    (error,) = caught.value.errors
    assert error.pointer == "/model/params/init_scale"
    hint = error.detail.partition("where=")[2]
    assert ask(session, where=[hint]).held_fixed["model.params.init_scale"] == 0.1
    assert ask(session, tag=["study:condensed"]).held_fixed["model.params.init_scale"] == 0.1
    assert ask(session, where=["model.params.init_scale=1"]).held_fixed["model.params.init_scale"] == 1.0


@pytest.mark.parametrize(
    ("fields", "n"),
    [
        ({"optimizer": ["adam"]}, [5]),
        ({"optimizer": ["adam", "ko"]}, [5, 5]),
        ({"user": "compare-a"}, [5, 5]),
        ({"user": "compare-nobody"}, []),
        ({"dataset": "mnist"}, []),
        ({"model": "cnn"}, []),
        ({"where": ["schedule=constant"]}, [5, 5]),
        ({"where": ["schedule.name=cosine"]}, []),
        ({"where": ["model.params.hidden=[256,256]"]}, [5, 5]),
        ({"where": ["gradient_clip=null"]}, [5, 5]),
        ({"where": ["environment.device_kind=cpu", "precision=fp32"]}, [5, 5]),
        ({"where": ["environment.device_kind=cuda"]}, []),
        ({"where": ["optimizer.params.collision=soft"]}, [5]),
        ({"where": ["model.params.hidden.'; drop table jobs --=1"]}, []),
        ({"tag": ["study:first"]}, [5, 5]),
        ({"tag": ["study:first", "by:you"]}, []),
        ({"metric": "val_loss"}, [5, 5]),
    ],
)
def test_filters_select_the_runs(session, store, fields, n):
    store.study(tags={"study": "first", "by": "me"})
    assert [group.n for group in ask(session, **fields).groups] == n


def test_compares_models_without_a_model(session, store):
    for seed, value in enumerate(ADAM_VALUES):
        store.job(ADAM, seed, value)
        store.job(ADAM, seed, value - 0.1, model="cnn")
    answer = compare(session, CompareQuery(dataset="digits", group_by="model"))
    assert [group.label for group in answer.groups] == ["mlp", "cnn"]
    assert answer.model is None


def test_recorded_target_is_the_default(session, store):
    for seed in range(3):
        store.job(ADAM, seed, 0.9, target={"value": 0.8}, hit=TargetHit(step=10 * (seed + 1), wall_seconds=seed + 0.5))
    (group,) = ask(session).groups
    assert (group.steps_to_target, group.seconds_to_target) == (20, 1.5)


def test_target_is_looked_up_in_stored_curves_with_three_queries(session, store):
    curves = {}
    for seed, value in enumerate(ADAM_VALUES):
        job = store.job(ADAM, seed, value)
        rising = [0.5, 0.8, 0.9, 0.96] if seed < 3 else [0.5, 0.6, 0.7, float("nan")]
        curves[job] = {"val_accuracy": ([30, 60, 90, 120], rising, [1.0, 2.0, 3.0, 4.0])}
    write.append(session, curves.items())
    with statements() as executed:
        (group,) = ask(session, target=0.9).groups
    assert (group.steps_to_target, group.seconds_to_target) == (90, 3.0)
    assert len(executed) == 3
    assert ask(session, target=0.97).groups[0].steps_to_target is None


def test_loss_reaches_its_target_from_above(session, store):
    curves = {
        store.job(ADAM, seed, 0.9): {"val_loss": ([10, 20, 30], [0.5, 0.3, 0.2], [1.0, 2.0, 3.0])} for seed in range(3)
    }
    write.append(session, curves.items())
    (group,) = ask(session, metric="val_loss", target=0.3).groups
    assert group.steps_to_target == 20


def test_too_many_jobs_are_refused(session, store, monkeypatch):
    store.study()
    monkeypatch.setattr(stored_jobs, "MAX_JOBS", 9)
    with pytest.raises(Invalid, match="more than 9 runs with a result match"):
        ask(session)


def test_runs_without_a_result_are_counted_but_not_read(session, store, monkeypatch):
    store.study()
    monkeypatch.setattr(stored_jobs, "MAX_JOBS", 10)
    for seed in range(6):
        store.job(ADAM, seed, None, evaluate_test=False)
        store.job(KO, seed, None, reason=Reason.CANCELLED)
        store.job(KO, seed, 0.9, reason=Reason.ERROR)
    left_out = ask(session).left_out
    assert (left_out.without_metric, left_out.cancelled, left_out.failed, left_out.unfinished) == (6, 6, 6, 0)


class TestOverHttp:
    def test_response_repeats_every_field_of_the_query(self, api, session, store):
        store.study()
        session.commit()
        response = api.get("/v1/compare", params={"dataset": "digits", "model": "mlp", "optimizer": ["adam", "ko"]})
        assert response.status_code == 200
        answer = response.json()
        assert answer["verdict"]["best"] == "ko soft (adam)"
        assert answer.keys() == CompareAnswer.model_fields.keys()

    def test_mixed_settings_return_422_with_pointers(self, api, session, store):
        store.study()
        store.study(batch_size=32)
        session.commit()
        response = api.get("/v1/compare", params={"dataset": "digits", "model": "mlp"})
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["pointer"] == "/batch_size"
        assert "where=batch_size=32" in error["detail"]

    @pytest.mark.parametrize(
        "params",
        [
            {"dataset": "digitz", "model": "mlp"},
            {"model": "mlp"},
            {"dataset": "digits"},
            {"dataset": "digits", "model": "mlp", "metric": "grad_norm"},
            {"dataset": "digits", "model": "mlp", "metric": "train_loss"},
            {"dataset": "digits", "model": "mlp", "target": "nan"},
            {"dataset": "digits", "model": "mlp", "target": 95},
            {"dataset": "digits", "model": "mlp", "metric": "x\x00y_loss"},
            {"dataset": "digits", "model": "mlp", "user": "a\x00b"},
            {"dataset": "digits", "model": "mlp", "tag": "a:b\x00"},
            {"dataset": "digits", "model": "mlp", "where": "seed=NaN"},
            {"dataset": "digits", "model": "mlp", "where": "model.\x00=1"},
            {"dataset": "digits", "model": "mlp", "where": 'model.name="\\u0000"'},
            {"dataset": "digits", "model": "mlp", "where": "seed=" + "[" * 5000},
            {"dataset": "digits", "model": "mlp", "where": "seed=1" + "0" * 5000},
            {"dataset": "digits", "model": "mlp", "where": "seed=1e999"},
            {"dataset": "digits", "model": "mlp", "where": 'precision="\\ud800"'},
            {"dataset": "digits", "model": "mlp", "group_by": "seed"},
        ],
    )
    def test_invalid_queries_never_return_500(self, api, params):
        response = api.get("/v1/compare", params=params)
        assert response.status_code == 422, response.text
        assert response.json()["errors"]
