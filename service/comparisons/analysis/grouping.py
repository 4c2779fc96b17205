"""Runs, the groups that a comparison puts them in, and whether they belong into one comparison at all.

Everything here is pure: specs in, groups and labels out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from service.comparisons.design.labels import GroupBy, flat, labels
from service.errors import FieldError, Invalid
from service.specs.training import JobStatus, Reason, TargetHit

NOT_A_SETTING = frozenset({"device", "diagnostics_every_steps", "evaluate_test", "log_every_steps"})
"""Fields that runs of one setting may differ in, because they do not change what is learned (`device` asks, the
recorded environment says what it was)."""

ENVIRONMENT_SETTING = ("device_kind", "torch", "data_hash", "engine_version")
"""What the environment adds to the setting: runs that differ here train to other numbers from the same spec."""

_canonical = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class Run:
    """One job as a comparison sees it: `value` is the metric at its end; without `target_hit` it missed the target.

    `spec` is the resolved spec without its seed.
    """

    job: UUID
    spec: Mapping[str, Any]
    seed: int
    environment: Mapping[str, Any]
    status: JobStatus
    reason: Reason | None
    value: float | None
    target_hit: TargetHit | None
    finished_at: datetime | None

    @property
    def diverged(self) -> bool:
        """Whether the run ended in a loss that is not finite: a result, unlike other failures."""
        return self.reason is Reason.DIVERGED

    @property
    def counts(self) -> bool:
        """Whether the run says something about its optimizer."""
        return self.diverged or (self.status is JobStatus.SUCCEEDED and self.value is not None)


@dataclass(frozen=True)
class Group:
    """Runs that are equal in the grouped field, the latest of each seed, by seed."""

    label: str
    value: Any
    runs: tuple[Run, ...]

    @property
    def optimizer(self) -> dict[str, Any]:
        """The optimizer of every run here."""
        return dict(self.runs[0].spec["optimizer"])

    @property
    def values(self) -> dict[int, float]:
        """Seed -> metric of the runs that finished.

        A diverged run is left out whatever values it had before: those of its last finite step would flatter it.
        """
        return {run.seed: run.value for run in self.runs if not run.diverged and run.value is not None}

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(run.diverged for run in self.runs)


def group(runs: Sequence[Run], group_by: GroupBy) -> list[Group]:
    """Put runs that count into groups, in the order of their labels."""
    members: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (run.finished_at is not None, run.finished_at, run.job)):
        members.setdefault(_canonical(run.spec[group_by]), {})[run.seed] = run
    keys = sorted(members)
    values = [json.loads(key) for key in keys]
    groups = [
        Group(label, value, tuple(run for _, run in sorted(members[key].items())))
        for key, value, label in zip(keys, values, labels(values, group_by), strict=True)
    ]
    return sorted(groups, key=lambda group: group.label)


# --- one setting -----------------------------------------------------------------------------------------------------


def shared_setting(runs: Sequence[Run], group_by: GroupBy) -> dict[str, Any]:
    """What all runs have in common besides seed and grouped field, as dotted path -> value.

    Raises Invalid where they do not: a comparison over mixed settings would be dishonest. Its errors name each field
    that differs, the values seen, and how to narrow it.
    """
    distinct: list[dict[str, Any]] = []
    for run in runs:
        setting = _setting(run, group_by)
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


def _setting(run: Run, group_by: GroupBy) -> dict[str, Any]:
    ignored = NOT_A_SETTING | {group_by}
    if not run.spec.get("stop_at_target"):
        ignored |= {"target"}  # only watched for: it changes nothing
    setting = {name: value for name, value in run.spec.items() if name not in ignored}
    setting["environment"] = {
        name: run.environment[name] for name in ENVIRONMENT_SETTING if run.environment.get(name) is not None
    }
    return setting


def _differences(settings: Sequence[Mapping[str, Any]]) -> tuple[FieldError, ...]:
    seen = {
        path: sorted({json.dumps(setting.get(path)) for setting in settings})
        for path in sorted({path for setting in settings for path in setting})
    }
    differing = {path: values for path, values in seen.items() if len(values) > 1}
    other_choices = {path.removesuffix("name") + "params" for path in differing if path.endswith(".name")}
    return tuple(
        FieldError(
            "/" + path.replace(".", "/"),
            f"seen: {', '.join(values[:8])}{', ...' if len(values) > 8 else ''}; "
            f"narrow it with where={path}={values[0].strip(chr(34))}",
        )
        for path, values in differing.items()
        if not any(path.startswith(params) for params in other_choices)  # of course their parameters differ, too
    )


def held_fixed(setting: Mapping[str, Any], groups: Sequence[Group], group_by: GroupBy) -> dict[str, Any]:
    """What all runs share, readable: parameters of the optimizer by bare name, the rest by path, nulls left out.

    Parameters that are equal in all groups although the field is grouped by are held fixed, too.
    """
    grouped = [flat({group_by: group.value}) for group in groups]
    shared = {
        path: value
        for path, value in (grouped[0] if grouped else {}).items()
        if all(path in other and other[path] == value for other in grouped)
    }
    told_elsewhere = {"dataset.name", "model.name", "stop_at_target", group_by, f"{group_by}.name"}
    return {
        path.removeprefix("optimizer.params."): value
        for path, value in (shared | dict(setting)).items()
        if value is not None and path not in told_elsewhere
    }
