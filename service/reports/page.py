"""The HTML report: one self-contained file without scripts or external resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.comparisons.answers import ComparisonAnswer, PlanView, ReusedRun, TaskAnswer
from service.metrics.read import Curve
from service.reports.figures import across, canvas, costs, scores, training, tuning
from service.reports.figures.canvas import Picture
from service.reports.figures.study import Study
from service.reports.lookup import leaders
from service.reports.sources import Excerpt, UploadedFile, excerpts
from service.reports.tables import comparison as comparison_tables
from service.reports.tables import task as task_tables
from service.reports.tables.table import Table
from service.reports.traces import GroupCurves, curves_by_group, watched_metric
from service.reports.wording import Scale, count, fixed, moment, number, target_in_words
from service.specs.metric_text import Measure
from service.specs.quantities import duration, significance_level
from service.specs.text import counted, listed

PACKAGE = "service.reports"
ENVIRONMENT = "environment."  # prefix of fields about the machine and software of the runs
MAX_DRAWN = 12
"""Maximum number of tasks with figures; each costs about a second and 200 KiB of the page."""
PHASES = {"tuning": "tuning", "reporting": "final runs", "finished": ""}


@dataclass(frozen=True)
class Part:
    """A subsection: tables and figures in the order in which they are shown."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    text: str = ""

    @property
    def drawn(self) -> list[Picture]:
        """The figures that could be drawn."""
        return [picture for picture in self.pictures if picture.svg is not None]

    @property
    def left_out(self) -> str:
        """Titles of the missing figures, grouped by reason."""
        reasons: dict[str, list[str]] = {}
        for picture in self.pictures:
            if picture.svg is None:
                reasons.setdefault(picture.reason, []).append(picture.title[:1].lower() + picture.title[1:])
        return "; ".join(f"{listed(titles)} ({reason})" for reason, titles in reasons.items())


@dataclass(frozen=True)
class Section:
    """A section about one task, or about all tasks together."""

    anchor: str
    title: str
    text: str
    facts: Sequence[tuple[str, str]]
    parts: Sequence[Part]


def page(
    answer: ComparisonAnswer, curves: Mapping[UUID, Mapping[str, Curve]], uploaded: Sequence[UploadedFile] = ()
) -> str:
    """Render the page."""
    study = Study(answer, curves)
    with canvas.settings():
        sections = [
            _task(study, task, f"t{number}", is_drawn=number <= MAX_DRAWN)
            for number, task in enumerate(answer.tasks, 1)
        ]
        if answer.across is not None:
            sections.append(_across(study))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            answer=answer,
            css=Markup((files(PACKAGE) / "templates" / "report.css").read_text(encoding="utf-8")),
            status=answer.status.capitalize(),
            status_text=_status(answer),
            sections=sections,
            styles=study.styles,
            missing=comparison_tables.missing(answer),
            reused=_reused(answer.reused),
            plan=[comparison_tables.planned_tasks(answer), comparison_tables.planned_optimizers(answer, study.styles)],
            protocol=_protocol(answer),
            environment=_environments(answer),
            record=_record(answer),
            verdict=_verdict(answer),
            sources=[(excerpt, _about(excerpt)) for excerpt in excerpts(uploaded)],
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,  # labels, names and tags are users'
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# --- the top ---------------------------------------------------------------------------------------------------------


def _status(answer: ComparisonAnswer) -> str:
    """Number of ended and planned runs, their statuses, and the device time."""
    progress = answer.progress
    ended = progress.succeeded + progress.diverged + progress.failed + progress.cancelled
    is_over = answer.status != "running"
    planned = counted(progress.jobs, "run") if is_over else f"at most {counted(progress.jobs_at_most, 'run')}"
    parts = [f"{count(ended)} of {planned} ended"]
    if is_over and progress.jobs < progress.jobs_at_most:
        parts[0] += f" (up to {count(progress.jobs_at_most)} were planned)"
    for amount, word in (
        (progress.running, "running"),
        (progress.queued, "queued"),
        (progress.diverged, "diverged"),
        (progress.failed, "failed"),
        (progress.cancelled, "cancelled"),
        (progress.reused, "reused"),
    ):
        if amount:
            parts.append(f"{count(amount)} {word}")
    parts.append(f"{duration(progress.seconds_used)} of device time")
    if not is_over and progress.seconds_left is not None:
        parts.append(f"at most about {duration(progress.seconds_left)} left")
    phase = PHASES[progress.phase]
    return (f"{phase}: " if phase else "") + ", ".join(parts)


def _verdict(answer: ComparisonAnswer) -> list[tuple[str, str]]:
    """Sentences of the verdict, each with its task label; empty for sentences about all tasks."""
    labels = [task.label for task in answer.tasks]
    sentences = []
    for sentence in answer.verdict:
        label = next((task for task in labels if len(labels) > 1 and sentence.startswith(f"{task}: ")), "")
        sentences.append((label, sentence.removeprefix(f"{label}: ") if label else sentence))
    return sentences


# --- sections --------------------------------------------------------------------------------------------------------


def _task(study: Study, task: TaskAnswer, key: str, *, is_drawn: bool) -> Section:
    started = any(group.n or group.diverged for group in task.groups)
    runs = curves_by_group(task, study.curves)
    parts = [
        Part(
            "Scores",
            [task_tables.groups(task, study.styles, leaders(study.answer, task))] if started else [],
            text="" if started else f"No final run has a result{study.yet}.",
        ),
        _differences(task, study),
        Part("Training and results", pictures=_results_drawn(study, task, key, runs)) if is_drawn else None,
        _tuning(study, task, key, is_drawn=is_drawn),
        _cost(study, task, key, runs, is_drawn=is_drawn),
    ]
    text = "" if is_drawn else f"No figures: only the first {MAX_DRAWN} tasks have figures."
    return Section(key, task.label, text, _facts(task), [part for part in parts if part is not None])


def _differences(task: TaskAnswer, study: Study) -> Part:
    if any(pair.difference is not None for pair in task.pairs):
        return Part("Differences", [task_tables.pairs(task, study.styles)])
    reasons = dict.fromkeys(pair.cannot_say for pair in task.pairs if pair.cannot_say)
    why = f": {listed(list(reasons))}" if reasons else ""
    return Part("Differences", text=f"No pair can be compared{study.yet}{why}.")


def _results_drawn(study: Study, task: TaskAnswer, key: str, runs: Mapping[str, GroupCurves]) -> list[Picture]:
    metric = watched_metric(task, runs)
    return [
        training.curves(study, task, f"{key}-steps", metric, "steps", runs),
        training.curves(study, task, f"{key}-time", metric, "wall_seconds", runs),
        scores.endpoints(study, task, f"{key}-runs", runs),
        scores.differences(study, task, f"{key}-pairs"),
        training.curves(study, task, f"{key}-loss", "train_loss", "steps", runs),
        training.curves(study, task, f"{key}-condensation", "weight_correlation", "steps", runs),
    ]


def _tuning(study: Study, task: TaskAnswer, key: str, *, is_drawn: bool) -> Part:
    table = task_tables.tuning(task, study.styles)
    if table is None:
        return Part("Tuning", text="No hyperparameters were tuned; all were fixed in the request.")
    if not is_drawn:
        return Part("Tuning", [table])
    clouds = [tuning.two_parameters(study, view, f"{key}-tried{n}") for n, view in enumerate(task.tuning, 1)]
    return Part(
        "Tuning",
        [table],
        [
            tuning.learning_rates(study, task, f"{key}-rates"),
            tuning.expected_best(study, task, f"{key}-trials"),
            *(cloud for cloud in clouds if cloud is not None),
        ],
    )


def _cost(study: Study, task: TaskAnswer, key: str, runs: Mapping[str, GroupCurves], *, is_drawn: bool) -> Part:
    table = task_tables.cost(task, study.styles)
    pictures = (
        [costs.costs(study, task, f"{key}-cost"), scores.times_to_target(study, task, f"{key}-target", runs)]
        if is_drawn
        else []
    )
    text = "" if table or pictures else f"No run has reported its time{study.yet}."
    return Part("Cost and time to target", [table] if table else [], pictures, text)


def _across(study: Study) -> Section:
    across_tasks = study.answer.across
    assert across_tasks is not None
    metric = study.answer.plan.metric
    part = Part(
        "",
        [comparison_tables.ranks(across_tasks, metric, study.styles)] if across_tasks.ranks else [],
        [
            across.ranks(study, across_tasks, "all-ranks"),
            across.interquartile_means(study, across_tasks, "all-iqm", metric),
            across.improvements(study, across_tasks, "all-improvement"),
            across.profiles(study, across_tasks, "all-profile"),
        ],
    )
    text = "".join(f"Not available: {why}. " for why in across_tasks.cannot_say).strip()
    return Section("all", "All tasks together", text, [], [part])


def _facts(task: TaskAnswer) -> list[tuple[str, str]]:
    """The task, and the fields that are equal for all optimizers."""
    facts = [("data set", task.dataset), ("model", task.model or ""), ("endpoint", Scale(task.metric).words)]
    if task.target is not None:
        facts.append(("target", target_in_words(task.target.model_dump())))
    facts += [
        (_readable(path), number(value)) for path, value in task.held_fixed.items() if not path.startswith(ENVIRONMENT)
    ]
    left = task.left_out
    counts = [(left.unfinished, "unfinished"), (left.failed, "failed"), (left.cancelled, "cancelled")]
    if any(amount for amount, _ in counts):
        facts.append(
            ("excluded from the statistics", ", ".join(f"{count(amount)} {word}" for amount, word in counts if amount))
        )
    return [(name, value) for name, value in facts if value]


def _readable(path: str) -> str:
    """`model.params.init_scale` as `model init scale`."""
    return path.replace(".params.", " ").removesuffix(".name").replace(".", " ").replace("_", " ")


# --- the end ---------------------------------------------------------------------------------------------------------


def _reused(runs: Sequence[ReusedRun]) -> str:
    """Number of reused runs, and their owners."""
    if not runs:
        return "All runs were trained for this comparison."
    owners = Counter(run.user for run in runs).most_common()
    counts = listed([f"{user} ({amount})" for user, amount in owners])
    return f"{counted(len(runs), 'existing run')} {'was' if len(runs) == 1 else 'were'} reused, submitted by {counts}."


def _protocol(answer: ComparisonAnswer) -> list[tuple[str, str]]:
    """The rest of the plan: seeds, looks, tests, tuning."""
    plan = answer.plan
    seeds = plan.seeds
    rows = [
        ("endpoint", Scale(plan.metric).words + Measure(plan.metric).weights),
        (
            "seeds",
            f"{seeds[0]} to {seeds[-1]} ({len(seeds)})" if len(seeds) > 1 else listed([str(seed) for seed in seeds]),
        ),
        ("split of the data", "a new one for each seed" if "split" in plan.vary else "one for all seeds"),
        ("looks", _looks(plan)),
        ("pairs tested together", count(plan.pairs)),
        ("nominal p at each look", ", ".join(map(significance_level, plan.nominal_p))),
    ]
    if plan.tuning is not None:
        names = {name for name in plan.tuning if name != "reduction" or plan.tuning.get("method") == "halving"}
        rows += [
            (f"tuning: {name.replace('_', ' ')}", number(value).replace("_", "-"))
            for name, value in plan.tuning.items()
            if name in names
        ]
    if len(plan.rungs) > 1:
        rungs = [f"{rung['trials']} trials with {fixed(100 * rung['share'], 0)} % of the budget" for rung in plan.rungs]
        rows.append(("halving", ", then ".join(rungs)))
    return [(name, value) for name, value in rows if value]


def _looks(plan: PlanView) -> str:
    """When the plan tests; only planned looks have nominal p values."""
    if len(plan.looks) == 1:
        return "one test, at the end"
    return f"tests after {listed(list(map(str, plan.looks)))} seeds" if plan.nominal_p else "a test after each seed"


def _environments(answer: ComparisonAnswer) -> list[tuple[str, str]]:
    """Machine and software of the runs; fields that differ between tasks list all values."""
    values_by_name: dict[str, dict[str, None]] = {}
    for task in answer.tasks:
        for name, value in task.held_fixed.items():
            if name.startswith(ENVIRONMENT):
                values_by_name.setdefault(name.removeprefix(ENVIRONMENT), {})[number(value)] = None
    return [(name.replace("_", " "), listed(list(values))) for name, values in values_by_name.items()]


def _record(answer: ComparisonAnswer) -> list[tuple[str, str]]:
    """Id, owner, times and tags."""
    rows = [
        ("id", str(answer.id)),
        ("submitted by", answer.user),
        ("created", moment(answer.created_at)),
        ("finished", moment(answer.finished_at)),
        ("tags", ", ".join(f"{name}:{value}" for name, value in answer.tags.items())),
    ]
    return [(name, value) for name, value in rows if value]


def _about(excerpt: Excerpt) -> list[tuple[str, str]]:
    """What identifies a source."""
    of = excerpt.of
    return [("file", excerpt.name), ("SHA-256", of.sha256), ("uploaded", moment(of.created_at))]
