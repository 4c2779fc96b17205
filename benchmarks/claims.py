"""The value of KO on digits: the two studies of `benchmarks/golden.py --fresh` and `--width`.

Fresh splits. Claim: the table shows which optimizers beat their tuned base on splits that were not used for tuning.
Every contender has the same number of trials (without a knob, all are learning rates), and its setting is the one with
the best mean validation accuracy over the tuning seeds. This setting trains once per evaluation seed, which determines
split, initial weights and data order for all contenders, so differences are paired. All splits are random
partitions of the same 1797 records. Intervals and p values therefore generalize to other splits of these records, not
to other data, and a test record may have been a validation record during tuning, for every contender alike.

Width. Claim: gamma * lambda_max(C), and with it the effect of gamma, grows with the width of the layers. Adam at 1e-3
on the golden split, without tuning.

A diverged training scores chance level, 0.1, and is counted.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.digits import CHANCE, EPOCHS, WORKERS, Run, Setting, Task, train_all
from service import stats

SCALES = (1.0, 0.1)
TUNING_SEEDS = range(2000, 2003)
EVALUATION_SEEDS = range(1000, 1010)
TRIALS = 15
# Both ends are worse than the middle, for Adam and for SGD alone, on the tuning seeds and at both initial scales.
RATES = {"adam": (3e-4, 2e-2), "sgd": (1e-2, 0.3)}

WIDTHS = (64, 128, 256, 512, 1024)
WIDTH_SEEDS = range(3)
WIDTH_FORMS = (("none", 0.0), ("soft", 0.01), ("soft", 0.03), ("soft", 0.1), ("soft", 0.3), ("bounded", 1.0))


@dataclass(frozen=True)
class Contender:
    """An optimizer of the study; without `knobs` only its learning rate is tuned."""

    title: str
    base: str
    form: str
    knob: str = ""
    knobs: tuple[float, ...] = ()

    def trials(self, scale: float, epochs: int = EPOCHS) -> list[Setting]:
        """`TRIALS` settings: learning rates spaced evenly in their logarithm, each with each knob."""
        knobs = self.knobs or (0.0,)
        rates = spaced(*RATES[self.base], TRIALS // len(knobs))
        return [Setting(self.base, lr, self.form, knob, scale, epochs=epochs) for lr in rates for knob in knobs]

    def label(self, setting: Setting) -> str:
        """The chosen setting; a dagger marks the edge of the range, beyond which a better value may exist."""
        lr = f"lr {setting.lr:.2g}{'†' if setting.lr in ends(s.lr for s in self.trials(setting.scale)) else ''}"
        if not self.knobs:
            return lr
        return f"{lr}, {self.knob} {setting.knob:g}{'†' if setting.knob in ends(self.knobs) else ''}"


# Soft gammas lie on both sides of 1 / lambda_max (13 to 19 at this width); hard rates are a factor 5 apart.
SOFT, BOUNDED, HARD = (0.01, 0.03, 0.1), (0.1, 0.3, 1.0), (0.1, 0.5, 2.5)
CONTENDERS = (
    Contender("Adam", "adam", "plain"),
    Contender("KO soft", "adam", "soft", "gamma", SOFT),
    Contender("KO bounded", "adam", "bounded", "gamma", BOUNDED),
    Contender("KO hard", "adam", "hard", "rate", HARD),
    Contender("noise of the soft collision's norm", "adam", "noise", "gamma", SOFT),
    Contender("decoupled weight decay (AdamW)", "adam", "decay", "decay", (0.01, 0.1, 1.0)),
    Contender("orthogonality penalty", "adam", "orthogonal", "penalty", (1e-5, 1e-4, 1e-3)),
    Contender("gradient centralization", "adam", "centralized"),
    Contender("SGD", "sgd", "plain"),
    Contender("KO soft", "sgd", "soft", "gamma", SOFT),
    Contender("KO bounded", "sgd", "bounded", "gamma", BOUNDED),
    Contender("KO hard", "sgd", "hard", "rate", HARD),
)


def spaced(lowest: float, highest: float, n: int) -> list[float]:
    """`n` >= 2 numbers from `lowest` to `highest`, evenly spaced in their logarithm."""
    inner = [lowest * (highest / lowest) ** (k / (n - 1)) for k in range(1, n - 1)]
    return [lowest, *inner, highest]


def ends(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    numbers = list(values)
    return min(numbers), max(numbers)


def score(run: Run, accuracy: float) -> float:
    """The accuracy, or chance level if the training diverged."""
    return CHANCE if run.diverged else accuracy


def with_progress(tasks: Sequence[Task], workers: int) -> list[Run]:
    """Run all tasks, with a line of progress on stderr every 60 runs."""
    start, runs = time.perf_counter(), []
    for run in train_all(tasks, workers):
        runs.append(run)
        if len(runs) % 60 == 0 or len(runs) == len(tasks):
            print(f"{len(runs)} of {len(tasks)} runs, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return runs


def chosen(runs: Iterable[Run]) -> Setting:
    """The setting with the best mean validation accuracy; ties go to the smallest learning rate, then smallest knob."""
    scores: dict[Setting, list[float]] = defaultdict(list)
    for run in runs:
        scores[run.setting].append(score(run, run.validation))
    # Rounded, because means of equal counts of records differ in the last digits.
    return max(scores, key=lambda s: (round(statistics.fmean(scores[s]), 6), -s.lr, -s.knob))


@dataclass(frozen=True)
class Study:
    """The runs of a study and the command that made them; `tuning` is empty if nothing was tuned."""

    command: str
    evaluation: list[Run]
    tuning: list[Run]
    torch: str = torch.__version__

    def save(self, path: Path) -> None:
        """Write the study as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read a study that `save` has written."""
        saved = json.loads(path.read_text())
        for part in ("evaluation", "tuning"):
            saved[part] = [Run(**{**run, "setting": Setting(**run["setting"])}) for run in saved[part]]
        return cls(**saved)

    def caption(self, *facts: str) -> str:
        """The caption of a table: command, torch version and facts."""
        return f"`{self.command}`, torch {self.torch}; " + "; ".join(facts) + "."


def fresh(
    command: str,
    workers: int = WORKERS,
    tuning_seeds: Sequence[int] = TUNING_SEEDS,
    evaluation_seeds: Sequence[int] = EVALUATION_SEEDS,
    epochs: int = EPOCHS,
) -> Study:
    """Choose each contender's setting on the tuning seeds, then train it on the evaluation seeds."""
    entries = [(contender, scale) for scale in SCALES for contender in CONTENDERS]
    trials = [setting for contender, scale in entries for setting in contender.trials(scale, epochs)]
    tuning = with_progress([Task(setting, seed, split=seed) for setting in trials for seed in tuning_seeds], workers)
    runs_of_entry: dict[tuple[float, str, str], list[Run]] = defaultdict(list)
    for run in tuning:
        runs_of_entry[run.setting.entry].append(run)
    settings = [chosen(runs_of_entry[scale, contender.base, contender.form]) for contender, scale in entries]
    # Contenders of one seed run next to each other, so that disturbances affect their times alike.
    tasks = [Task(setting, seed, split=seed) for seed in evaluation_seeds for setting in settings]
    return Study(command, with_progress(tasks, workers), tuning)


def fresh_table(study: Study) -> str:
    """Markdown table with a row per initial scale and contender, in the order of `CONTENDERS`."""
    lines = [
        "| initial scale | optimizer | chosen | test accuracy | paired difference to its base | p | p (Holm) "
        "| diverged | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for scale in SCALES:
        for base in RATES:
            lines += _fresh_rows(study, scale, [c for c in CONTENDERS if c.base == base])
    seeds, tuning_seeds = ({run.seed for run in runs} for runs in (study.evaluation, study.tuning))
    caption = study.caption(
        f"mean ± sd over n = {len(seeds)} seeds, each with its own split, weights and data order, shared by all "
        "optimizers",
        f"settings chosen from {TRIALS} candidates per optimizer by mean validation accuracy over {len(tuning_seeds)} "
        "other seeds; †: at the edge of the range tried",
        "differences with 95 % paired t interval, two-sided p, Holm's adjustment within a base and scale",
        f"diverged trainings count as {CHANCE}",
        "time: CPU time of the steps relative to the base, median over pairs",
    )
    return "\n".join([*lines, "", caption])


def _fresh_rows(study: Study, scale: float, contenders: Sequence[Contender]) -> list[str]:
    """The rows of one initial scale and base; the base itself is the first contender."""
    runs_by_seed = sorted(study.evaluation, key=lambda run: run.seed)
    runs = [[run for run in runs_by_seed if run.setting.entry == (scale, c.base, c.form)] for c in contenders]
    scores = [[score(run, run.test) for run in own] for own in runs]
    paired = [stats.paired_difference(own, scores[0]) for own in scores[1:]]
    adjusted = stats.holm([pair.p for pair in paired])
    differences = ["| | |"]
    for pair, p in zip(paired, adjusted, strict=True):
        low, high = pair.interval or (math.nan, math.nan)
        interval = f"[{low:+.4f}, {high:+.4f}]" if pair.interval else f"({pair.cannot_say})"
        differences.append(f"{pair.difference:+.4f} {interval} | {_p(pair.p)} | {_p(p)} |")
    rows = []
    for contender, own, values, difference in zip(contenders, runs, scores, differences, strict=True):
        ratio = statistics.median(r.cpu_seconds / b.cpu_seconds for r, b in zip(own, runs[0], strict=True))
        rows.append(
            f"| {scale:g} | {contender.title} | {contender.label(own[0].setting)} | {_mean(values)} | {difference} "
            f"{sum(run.diverged for run in own)} of {len(own)} | {ratio:.2f} |"
        )
    return rows


def _mean(values: Sequence[float]) -> str:
    sample = stats.describe(values)
    return f"{sample.mean:.4f}" + ("" if sample.sd is None else f" ± {sample.sd:.4f}")


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.2g}"


def width(command: str, workers: int = WORKERS, widths: Sequence[int] = WIDTHS, epochs: int = EPOCHS) -> Study:
    """Train every width, initial scale and form, the widest first, so that no process idles at the end."""
    tasks = [
        Task(Setting("adam", 1e-3, form, knob, scale, n, epochs), seed, measured=True)
        for n in sorted(widths, reverse=True)
        for scale in SCALES
        for form, knob in WIDTH_FORMS
        for seed in WIDTH_SEEDS
    ]
    return Study(command, with_progress(tasks, workers), [])


def width_table(study: Study) -> str:
    """Markdown table with a row per initial scale and width and a column per form."""
    cells: dict[tuple[float, int, str, float], list[Run]] = defaultdict(list)
    for run in study.evaluation:
        cells[run.setting.scale, run.setting.width, run.setting.form, run.setting.knob].append(run)
    titles = [form if form == "none" else f"{form} {knob:g}" for form, knob in WIDTH_FORMS]
    lines = [f"| initial scale | width | {' | '.join(titles)} |", "|---" * (2 + len(titles)) + "|"]
    for scale in SCALES:
        for n in sorted({run.setting.width for run in study.evaluation}):
            row = [cells[scale, n, form, knob] for form, knob in WIDTH_FORMS]
            lines.append(f"| {scale:g} | {n} | {' | '.join(_width_cell(runs) for runs in row)} |")
    caption = study.caption(
        f"Adam 1e-3, golden split; mean ± sd of the test accuracy over n = {len({r.seed for r in study.evaluation})} "
        "seeds, and below it the mean over training of gamma * lambda_max(C) of the second hidden layer (without "
        "collisions: of lambda_max)",
        f"diverged trainings count as {CHANCE}",
    )
    return "\n".join([*lines, "", caption])


def _width_cell(runs: Sequence[Run]) -> str:
    diverged = sum(run.diverged for run in runs)
    name, values = "lambda", [run.lambda_max for run in runs]
    if runs[0].setting.form != "none":
        name, values = ("gamma lambda", [run.strength for run in runs])
    strength = statistics.fmean(value for value in values if value is not None)
    note = f", {diverged} diverged" if diverged else ""
    return f"{_mean([score(run, run.test) for run in runs])}{note}<br>{name} {strength:.2f}"
