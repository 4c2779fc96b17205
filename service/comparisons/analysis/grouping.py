"""Groups of runs, and whether stored runs are of one setting, so that they can be compared. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Generic, TypeVar

from service.comparisons.analysis.runs import Run, StoredRun
from service.comparisons.design.labels import GroupBy, flat, labels
from service.errors import FieldError, Invalid
from service.specs.summary import TargetHit
from service.stats import Sample, describe
from service.stats.multiple_testing import TaskScores, Values

_MEASUREMENTS = frozenset({"diagnostics_every_steps", "log_every_steps"})
NOT_A_SETTING = frozenset({"device", "evaluate_test"}) | _MEASUREMENTS
"""Fields in which runs of one setting may differ, because they do not change the training. `device` is the requested
device; the recorded environment contains the actual one. Measurements take time, so they belong to the setting of
times."""

ENVIRONMENT_SETTING = ("device_kind", "torch", "data_hash", "engine_version")
"""Environment fields that are part of the setting, because the same spec gives other numbers if they differ."""
ENVIRONMENT_WORDS = "data, torch version, engine version and kind of device"
"""The same in a sentence."""

_canonical = json.JSONEncoder(sort_keys=True).encode

AnyRun = TypeVar("AnyRun", bound=Run, covariant=True)


@dataclass(frozen=True)
class Group(Generic[AnyRun]):
    """Runs with the same value of the grouped field, one run per seed."""

    label: str
    value: Any
    """Value of the grouped field."""
    optimizer: dict[str, Any]
    runs: Mapping[int, AnyRun]
    """Seed -> run that counts."""
    values: Values
    """Seed -> metric, or the declared score of a run that diverged."""
    looks_done: int = 0
    """Number of planned looks for which all of its runs have ended."""
    lost: frozenset[int] = frozenset()
    """Seeds of missing runs."""

    @cached_property
    def sample(self) -> Sample:
        """Statistics of the values."""
        return describe(list(self.values.values()))

    @property
    def diverged(self) -> list[AnyRun]:
        """The runs that diverged."""
        return [run for run in self.runs.values() if run.result.diverged]

    def hit(self, seed: int) -> TargetHit | None:
        """When the run of a seed met the target; a diverged run counts as a miss even if it had met the target."""
        run = self.runs[seed]
        return None if run.result.diverged else run.hit


def by_mean(groups: Sequence[Group[AnyRun]], sign: int) -> list[Group[AnyRun]]:
    """The groups, best mean first, those without a mean last; `sign` is 1 if higher is better, -1 if lower is."""

    def rank(group: Group[AnyRun]) -> tuple[bool, float]:
        has_mean = group.sample.mean is not None
        return not has_mean, -sign * fmean(group.values.values()) if has_mean else 0.0

    return sorted(groups, key=rank)


def task_scores(groups: Sequence[Group[Run]]) -> TaskScores:
    """The scores of a task for the tests of its pairs."""
    return TaskScores(
        [group.values for group in groups], [group.looks_done for group in groups], [group.lost for group in groups]
    )


def group(runs: Sequence[StoredRun], group_by: GroupBy) -> list[Group[StoredRun]]:
    """Group runs that count, sorted by label; of several runs of a seed, the latest is used."""
    members: dict[str, dict[int, StoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.finished_at is not None, run.finished_at, run.job)):
        members.setdefault(_canonical(run.spec[group_by]), {})[run.seed] = run
    keys = sorted(members)
    values = [json.loads(key) for key in keys]
    groups = [
        _group(label, value, dict(sorted(members[key].items())))
        for key, value, label in zip(keys, values, labels(values, group_by), strict=True)
    ]
    return sorted(groups, key=lambda group: group.label)


def _group(label: str, value: Any, runs: dict[int, StoredRun]) -> Group[StoredRun]:
    """A diverged run has no value, because the last finite one would be too good."""
    optimizer = dict(next(iter(runs.values())).spec["optimizer"])
    values = {
        seed: run.result.value for seed, run in runs.items() if not run.result.diverged and run.result.value is not None
    }
    return Group(label, value, optimizer, runs, values)


# --- one setting -----------------------------------------------------------------------------------------------------


def shared_setting(runs: Sequence[StoredRun], group_by: GroupBy, *, is_speed: bool = False) -> dict[str, Any]:
    """The setting of all runs without seed and grouped field, as dotted path -> value.

    Raises Invalid for runs of several settings, whose results cannot be compared. Its errors name each differing field,
    its values, and a filter.
    """
    distinct: list[dict[str, Any]] = []
    for run in runs:
        setting = setting_of(run.spec, run.environment, {group_by}, is_speed=is_speed)
        if setting not in distinct:
            distinct.append(setting)
    settings = [flat(setting) for setting in distinct]
    if len(settings) > 1:
        raise Invalid(
            "The jobs that match come from several settings, so their results cannot be compared: keep one value of "
            "each field named here, or the jobs of one study with tag=KEY:VALUE",
            _differences(settings),
        )
    return settings[0] if settings else {}


def setting_of(
    spec: Mapping[str, Any], environment: Mapping[str, Any], ignored: Set[str], *, is_speed: bool
) -> dict[str, Any]:
    """All that decides a run's value of a metric, without `ignored` fields. `is_speed`: the metric is a throughput."""
    ignored, recorded = ignored | NOT_A_SETTING, [*ENVIRONMENT_SETTING]
    if is_speed or spec["budget"].get("seconds") is not None:
        ignored -= _MEASUREMENTS
        recorded.append("device_name")
    if not spec.get("stop_at_target"):
        ignored |= {"target"}  # only recorded: it does not change the training
    setting = {name: value for name, value in spec.items() if name not in ignored}
    setting["environment"] = {name: environment[name] for name in recorded if environment.get(name) is not None}
    return setting


def _differences(settings: Sequence[Mapping[str, Any]]) -> tuple[FieldError, ...]:
    values_by_path = {
        path: sorted({json.dumps(setting.get(path)) for setting in settings})
        for path in sorted({path for setting in settings for path in setting})
    }
    differing = {path: values for path, values in values_by_path.items() if len(values) > 1}
    other_choices = {path.removesuffix("name") + "params" for path in differing if path.endswith(".name")}
    return tuple(
        FieldError(
            "/" + path.replace(".", "/"),
            f"values: {', '.join(values[:8])}{', ...' if len(values) > 8 else ''}; "
            f"narrow it with where={path}={values[0].strip(chr(34))}",
        )
        for path, values in differing.items()
        if not any(path.startswith(params) for params in other_choices)  # parameters of different choices always differ
    )


def shared_parameters(groups: Sequence[Group[Run]], group_by: GroupBy) -> dict[str, Any]:
    """Parameters of the grouped field that are equal in all groups, as dotted path -> value."""
    first, *others = [flat({group_by: group.value}) for group in groups] or [{}]
    return {
        path: value for path, value in first.items() if all(path in other and other[path] == value for other in others)
    }


def held_fixed(setting: Mapping[str, Any], shown_elsewhere: Collection[str]) -> dict[str, Any]:
    """A setting without nulls and `shown_elsewhere`; parameters of the optimizer by bare name, the rest by path."""
    return {
        path.removeprefix("optimizer.params."): value
        for path, value in setting.items()
        if value is not None and path not in shown_elsewhere
    }
