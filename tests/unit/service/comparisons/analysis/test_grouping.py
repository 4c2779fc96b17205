"""Grouping of runs by a spec field: labels, groups, and the shared setting."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.comparisons.analysis.grouping import group, held_fixed, shared_parameters, shared_setting
from service.comparisons.analysis.runs import StoredRun
from service.comparisons.design.labels import labels
from service.comparisons.design.results import Result
from service.errors import Invalid
from service.specs.states import JobStatus, Reason
from service.specs.training import TrainSpec

ADAM = {"name": "adam", "params": {"lr": 0.001}}
TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}
START = datetime(2026, 1, 1, tzinfo=UTC)


def resolved(optimizer=ADAM, **fields):
    """A stored spec: validated, with explicit defaults, as JSON."""
    spec = TrainSpec.model_validate_json(json.dumps({**TASK, "optimizer": optimizer, **fields}))
    return spec.model_dump(mode="json")


def ko(**params):
    return {"name": "ko", "params": {"base": "adam", "lr": 0.001, **params}}


def control(**params):
    return {"name": "control", "params": params}


def run(spec, number=0, value=0.9, environment=None, reason=Reason.COMPLETED):
    return StoredRun(
        job=UUID(int=number),
        spec={name: value for name, value in spec.items() if name != "seed"},
        seed=spec["seed"],
        environment={"device_kind": "cpu", "torch": "2.14.1"} if environment is None else environment,
        result=Result(reason.status, reason, value),
        hit=None,
        finished_at=START + timedelta(seconds=number),
    )


def label(*optimizers):
    return labels([resolved(optimizer)["optimizer"] for optimizer in optimizers], "optimizer")


class TestLabels:
    @pytest.mark.parametrize(
        ("optimizers", "expected"),
        [
            (["adam"], ["adam"]),
            (["adam", "radam"], ["adam", "radam"]),
            (
                [ADAM, ko(), ko(bounded=True), ko(collision="hard"), ko(collision="none")],
                ["adam", "ko soft (adam)", "ko bounded (adam)", "ko hard (adam)", "ko none (adam)"],
            ),
            ([ADAM, {"name": "sgd", "params": {"lr": 0.1}}], ["adam lr=0.001", "sgd lr=0.1"]),
            (
                ["control", control(control="orthogonality"), control(strength=0.3), control(base="adamw")],
                ["noise (adam) strength=0.1", "orthogonality (adam)", "noise (adam) strength=0.3", "noise (adamw)"],
            ),
            (
                [ADAM, ko(gamma=0.1), ko(gamma=0.03)],
                ["adam", "ko soft (adam) gamma=0.1", "ko soft (adam) gamma=0.03"],
            ),
            (
                [{"name": "adam", "params": {"betas": [0.9, 0.99]}}, ADAM],
                ["adam betas=[0.9, 0.99]", "adam betas=[0.9, 0.999]"],
            ),
            (
                [ko(collision="hard"), ko(collision="hard", bounded=True)],
                ["ko hard (adam) bounded=false", "ko hard (adam) bounded=true"],
            ),
            (
                [ko(), ko(fade="cosine"), ko(embeddings=True), ko(bounded=True, group_size=64), ko(bounded=True)],
                [
                    "ko soft (adam) embeddings=false fade=none",
                    "ko soft (adam) embeddings=false fade=cosine",
                    "ko soft (adam) embeddings=true fade=none",
                    "ko bounded (adam) group_size=64",
                    "ko bounded (adam) group_size=null",
                ],
            ),
            (
                [{"name": "ko", "params": {"base": "sgd", "lr": 0.1}}, ko(lr=0.1)],
                ["ko soft (sgd)", "ko soft (adam)"],
            ),
        ],
    )
    def test_show_parameters_that_differ(self, optimizers, expected):
        assert label(*optimizers) == expected

    def test_numbers_are_shortened_unless_they_become_equal(self):
        rates = [{"name": "adam", "params": {"lr": lr}} for lr in (0.0031622776601683794, 0.01)]
        assert label(*rates) == ["adam lr=0.003162", "adam lr=0.01"]
        close = [{"name": "adam", "params": {"lr": lr}} for lr in (0.0031622776601683794, 0.0031622776)]
        assert label(*close) == ["adam lr=0.0031622776601683794", "adam lr=0.0031622776"]

    @pytest.mark.parametrize(
        ("group_by", "values", "expected"),
        [
            ("batch_size", [64, 128], ["batch_size=64", "batch_size=128"]),
            ("precision", ["fp32", "bf16"], ["precision=fp32", "precision=bf16"]),
            (
                "schedule",
                [resolved(schedule=name)["schedule"] for name in ("constant", "cosine")],
                ["constant", "cosine"],
            ),
            (
                "model",
                [resolved(model={"name": "mlp", "params": {"hidden": h}})["model"] for h in ([64], [64, 64])],
                ["mlp hidden=[64]", "mlp hidden=[64, 64]"],
            ),
        ],
    )
    def test_label_other_fields(self, group_by, values, expected):
        assert labels(values, group_by) == expected

    optimizers = st.lists(
        st.one_of(
            st.builds(lambda lr: {"name": "sgd", "params": {"lr": lr}}, st.sampled_from([0.1, 0.10000001, 1.0])),
            st.builds(
                lambda **params: ko(**params),
                lr=st.sampled_from([0.001, 0.01]),
                gamma=st.sampled_from([0.1, 0.2]),
                collision=st.sampled_from(["soft", "hard", "none"]),
                bounded=st.booleans(),
            ),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda optimizer: json.dumps(optimizer, sort_keys=True),
    )

    @given(optimizers)
    def test_are_unique_and_independent_of_order(self, optimizers):
        unique_labels = label(*optimizers)
        assert len(set(unique_labels)) == len(unique_labels)
        assert label(*reversed(optimizers)) == unique_labels[::-1]


class TestGroup:
    def test_has_the_latest_run_of_each_seed(self):
        runs = [
            run(resolved(seed=1), 5, 0.95),
            run(resolved(seed=0), 1, 0.90),
            run(resolved(seed=1), 3, 0.91),
            run(resolved("sgd", seed=0), 2, 0.80),
        ]
        for shuffled in itertools.permutations(runs):
            groups = group(shuffled, "optimizer")
            assert [grouped.label for grouped in groups] == ["adam lr=0.001", "sgd lr=0.1"]
            assert groups[0].values == {0: 0.90, 1: 0.95}
            assert [stored.job.int for stored in groups[0].runs.values()] == [1, 5]

    def test_diverged_run_has_no_value(self):
        runs = [run(resolved(seed=0), 0, 0.97, reason=Reason.DIVERGED), run(resolved(seed=1), 1, 0.9)]
        (grouped,) = group(runs, "optimizer")
        assert (grouped.values, grouped.diverged) == ({1: 0.9}, runs[:1])


class TestRunCounts:
    @pytest.mark.parametrize(
        ("reason", "value", "counts"),
        [
            (Reason.COMPLETED, 0.9, True),
            (Reason.TARGET_REACHED, 0.9, True),
            (Reason.COMPLETED, None, False),
            (Reason.DIVERGED, None, True),
            (Reason.OUT_OF_MEMORY, 0.9, False),
            (Reason.TIMED_OUT, 0.9, False),
            (Reason.CANCELLED, 0.9, False),
        ],
    )
    def test_diverged_and_succeeded_runs_count(self, reason, value, counts):
        assert run(resolved(), value=value, reason=reason).counts is counts

    def test_unfinished_runs_do_not_count(self):
        queued = replace(run(resolved()), result=Result(JobStatus.QUEUED, None), finished_at=None)
        assert not queued.counts


class TestSharedSetting:
    def test_returns_shared_setting(self):
        setting = shared_setting([run(resolved(seed=0)), run(resolved("sgd", seed=1))], "optimizer")
        assert setting["model.params.hidden"] == [256, 256]
        assert setting["environment.device_kind"] == "cpu"
        assert not any(path.startswith(("optimizer", "seed", "device", "target")) for path in setting)

    @pytest.mark.parametrize(
        "fields",
        [
            {"seed": 7},
            {"device": "cpu"},
            {"log_every_steps": 1},
            {"diagnostics_every_steps": 50},
            {"evaluate_test": False},
            {"target": {"value": 0.5}},
        ],
    )
    def test_fields_without_effect_on_training_can_differ(self, fields):
        shared_setting([run(resolved()), run(resolved(**fields))], "optimizer")

    @pytest.mark.parametrize("budget", [{"epochs": 3}, {"seconds": 60}])
    @pytest.mark.parametrize("name", ["log_every_steps", "diagnostics_every_steps", "device_name"])
    def test_what_takes_time_belongs_to_the_setting_of_times(self, budget, name):
        environment = {"device_kind": "cpu", "device_name": "x"}
        one = run(resolved(budget=budget), environment=environment)
        if name == "device_name":
            other = replace(one, environment=environment | {name: "y"})
        else:
            other = run(resolved(budget=budget, **{name: 7}), environment=environment)
        with pytest.raises(Invalid) as caught:
            shared_setting([one, other], "optimizer", is_speed="epochs" in budget)
        assert [error.pointer.rpartition("/")[2] for error in caught.value.errors] == [name]

    @pytest.mark.parametrize(
        ("fields", "pointer", "seen", "hint"),
        [
            (
                {"model": {"name": "mlp", "params": {"init_scale": 0.1}}},
                "/model/params/init_scale",
                "values: 0.1, 1.0",
                "where=model.params.init_scale=0.1",
            ),
            ({"budget": {"epochs": 4}}, "/budget/epochs", "values: 3, 4", "where=budget.epochs=3"),
            ({"precision": "bf16"}, "/precision", 'values: "bf16", "fp32"', "where=precision=bf16"),
            ({"gradient_clip": 1.0}, "/gradient_clip", "values: 1.0, null", "where=gradient_clip=1.0"),
            ({"eval_every_steps": 5}, "/eval_every_steps", "values: 5, null", "where=eval_every_steps=5"),
        ],
    )
    def test_rejects_mixed_settings_with_fields_that_differ(self, fields, pointer, seen, hint):
        with pytest.raises(Invalid, match="several settings") as caught:
            shared_setting([run(resolved()), run(resolved(**fields))], "optimizer")
        (error,) = caught.value.errors
        assert error.pointer == pointer
        assert seen in error.detail
        assert hint in error.detail

    def test_stopping_target_is_part_of_the_setting(self):
        stopping = [resolved(stop_at_target=True, target={"value": value}) for value in (0.5, 0.6)]
        with pytest.raises(Invalid) as caught:
            shared_setting([run(spec) for spec in stopping], "optimizer")
        assert [error.pointer for error in caught.value.errors] == ["/target/value"]

    def test_rejects_different_choices_without_listing_parameters(self):
        with pytest.raises(Invalid) as caught:
            shared_setting([run(resolved()), run(resolved("sgd", schedule="step"))], "batch_size")
        assert [error.pointer for error in caught.value.errors] == ["/optimizer/name", "/schedule/name"]

    @pytest.mark.parametrize("name", ["device_kind", "torch", "data_hash", "engine_version"])
    def test_environment_is_part_of_the_setting(self, name):
        environment = {"device_kind": "cpu", "torch": "2.14.1", "data_hash": "a", "engine_version": 1, "host": "x"}
        shared_setting(
            [run(resolved(), environment=environment), run(resolved(), environment=environment | {"host": "y"})],
            "model",
        )
        with pytest.raises(Invalid) as caught:
            shared_setting(
                [run(resolved(), environment=environment), run(resolved(), environment=environment | {name: "z"})],
                "model",
            )
        assert [error.pointer for error in caught.value.errors] == [f"/environment/{name}"]


class TestHeldFixed:
    def fixed_fields(self, *specs):
        runs = [run(spec, number) for number, spec in enumerate(specs)]
        shared = shared_parameters(group(runs, "optimizer"), "optimizer")
        return held_fixed(shared | shared_setting(runs, "optimizer"), ())

    def test_shared_parameters_have_bare_names_and_other_fields_paths(self):
        fixed = self.fixed_fields(resolved(), resolved(ko()))
        assert fixed["lr"] == 0.001
        assert fixed["betas"] == [0.9, 0.999]
        assert fixed["schedule.name"] == "constant"
        assert fixed["batch_size"] == 64
        assert "gamma" not in fixed  # Adam has none
        assert None not in fixed.values()

    def test_differing_parameters_are_not_held_fixed(self):
        assert "lr" not in self.fixed_fields(resolved(), resolved("sgd"))
