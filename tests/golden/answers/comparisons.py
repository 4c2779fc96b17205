"""The comparisons whose answers are stored: the ready studies, and one scenario for each outcome of a comparison."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from kotrain.studies import STUDIES
from service.comparisons.design.plan import Cell
from service.specs.states import JobStatus, Reason
from tests.golden.answers.synthetic import ENVIRONMENT, START, End, Scenario

TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 27}}
TARGETED = TASK | {"target": {"value": 0.93}}
SPLIT = TASK | {"dataset": {"name": "digits", "params": {"split": "fixed_test"}}}
LR = {"lr": {"log_uniform": [0.0003, 0.03]}}
GAMMA = {"gamma": {"log_uniform": [0.01, 1.0]}}
ADAM, SGD = {"name": "adam", "space": LR}, {"name": "sgd", "space": {"lr": {"log_uniform": [0.01, 1.0]}}}
KO = {"name": "ko", "params": {"collision": "soft"}, "space": {**LR, **GAMMA}}
DATASETS_PRESENT = {"digits", "snips"}
LOOKS = {"max": 20, "looks": [5, 10, 20]}


def _tuned(**fields: Any) -> dict[str, Any]:
    return {"tasks": [TASK], "optimizers": [ADAM, KO, SGD], "tuning": {"trials": 4}} | fields


def _fixed(count: int, **fields: Any) -> dict[str, Any]:
    names = ["adam", "ko", "adamw", "lion", "muon"]
    optimizers = [{"name": names[k], "params": {"lr": 0.003}} for k in range(count)]
    return {"tasks": [TASK], "optimizers": optimizers} | fields


def _batches(*sizes: int, **fields: Any) -> list[dict[str, Any]]:
    return [TASK | {"batch_size": size} | fields for size in sizes]


def _study(name: str) -> dict[str, Any]:
    return STUDIES[name].request("small", DATASETS_PRESENT)


# --- outcomes of runs ------------------------------------------------------------------------------------------------


def _diverged(cell: Cell) -> End:
    """A report run of the second optimizer and a trial of the first diverge."""
    report = (cell.phase, cell.optimizer, cell.seed) == ("report", 1, 2)
    trial = (cell.phase, cell.optimizer, cell.trial) == ("tuning", 0, 1)
    return Reason.DIVERGED if report or trial else None


def _incomplete(cell: Cell) -> End:
    """Report runs end out of memory, timed out and lost; one trial fails."""
    reasons = {
        ("report", 0, 1, 2): Reason.OUT_OF_MEMORY,
        ("report", 0, 1, 3): Reason.OUT_OF_MEMORY,
        ("report", 1, 0, 1): Reason.TIMED_OUT,
        ("report", 1, 2, 4): Reason.CHILD_LOST,
    }
    if cell.phase == "tuning" and (cell.task, cell.optimizer, cell.trial) == (0, 2, 3):
        return Reason.ERROR
    return reasons.get((cell.phase, cell.task, cell.optimizer, cell.seed))


def _cancelled_early(cell: Cell) -> End:
    """Cancelled after the first optimizer has all results and the others have three seeds."""
    return Reason.CANCELLED if cell.phase == "report" and cell.seed >= 3 and cell.optimizer else None


def _tuning_fails(cell: Cell) -> End:
    return Reason.ERROR if cell.phase == "tuning" and cell.optimizer == 1 else None


def _times_out_while_tuning(cell: Cell) -> End:
    if (cell.phase, cell.optimizer) == ("tuning", 2):
        return JobStatus.RUNNING
    return Reason.TIMED_OUT if (cell.phase, cell.optimizer, cell.seed) == ("report", 0, 1) else None


def _last_seed_unfinished(cell: Cell) -> End:
    if cell.phase == "report" and cell.seed == 4:
        return JobStatus.QUEUED if cell.optimizer else JobStatus.RUNNING
    return None


def _environments(cell: Cell) -> dict[str, Any]:
    """One run has other data, another run another version of torch."""
    changes: dict[str, Any] = {}
    if cell.phase == "report" and cell.optimizer == 1 and cell.seed == 4:
        changes["environment"] = ENVIRONMENT | {"data_hash": "bb"}
    if cell.phase == "report" and cell.optimizer == 0 and cell.seed == 1:
        changes["environment"] = ENVIRONMENT | {"torch": "2.11.0"}
    return changes


def _reused(cell: Cell) -> dict[str, Any]:
    """Runs of even seeds are reused from another user's of the day before; those of seed 1 may have shared a device."""
    changes: dict[str, Any] = {"is_shared": cell.seed == 1}
    if cell.seed % 2 == 0 and cell.optimizer != 2:
        earlier = START - timedelta(days=1) + timedelta(seconds=cell.seed)
        changes |= {"is_reused": True, "user": "grace", "finished_at": earlier}
    return changes


def _left_behind(cell: Cell) -> float:
    """The third optimizer is significantly behind at the first look; afterwards the first two drop below it."""
    noise = 0.001 * (cell.seed * (3 + 2 * cell.optimizer) % 7)
    later = 0.0 if cell.seed < 5 else -0.05
    return round(0.9 + (later if cell.optimizer < 2 else -0.02) + noise * (1 + (cell.optimizer < 2)) / 2, 4)


def _messages(cell: Cell) -> dict[str, Any]:
    return {"message": "Traceback\n  line 1\nCUDA out of memory"} if _incomplete(cell) else {}


# --- scenarios -------------------------------------------------------------------------------------------------------

STUDY_SCENARIOS = {
    "study-first-look": Scenario(_study("first-look"), skill={1: 0.012, 3: 0.004, 6: 0.012}),
    "study-ko-claims": Scenario(_study("ko-claims"), skill={4: 0.012, 5: 0.004, 0: -0.02}, end=_diverged),
    "study-ko-ablation": Scenario(_study("ko-ablation"), skill={1: 0.006, 2: 0.003}, noise=0.002),
    "study-ko-cost": Scenario(_study("ko-cost"), noise=0.01, changes=lambda cell: {"is_shared": cell.seed == 3}),
}

FIXED = {
    "fixed-decided": Scenario(_fixed(3, tasks=[TARGETED]), skill={1: 0.03, 2: -0.02}),
    "fixed-open": Scenario(_fixed(3), skill={1: 0.002}),
    "fixed-far-from-decided": Scenario(
        _fixed(2, seeds=8),
        score=lambda cell: round(0.9 + 0.001 * (cell.seed * 7 % 5) * (-1) ** (cell.seed + cell.optimizer), 4),
    ),
    "fixed-lead-of-another": Scenario(_fixed(4, metric="test_loss"), skill={1: 0.03, 2: 0.0, 3: -0.2}, end=_diverged),
    "fixed-diverged-and-scored": Scenario(_fixed(3, tasks=[TARGETED]), skill={1: 0.03}, end=_diverged),
    "fixed-one-always-diverged": Scenario(
        _fixed(3, metric="val_loss"), skill={0: 0.02}, end=lambda cell: Reason.DIVERGED if cell.optimizer == 2 else None
    ),
    "fixed-all-diverged": Scenario(_fixed(2), end=lambda cell: Reason.DIVERGED),
    "fixed-each-diverged-once": Scenario(
        _fixed(2, metric="test_loss"), end=lambda cell: Reason.DIVERGED if cell.seed == 1 else None
    ),
    "fixed-too-large-a-loss": Scenario(
        _fixed(2, metric="test_loss"),
        score=lambda cell: -1e308 if cell.optimizer and cell.seed < 2 else 0.9 + 0.01 * cell.seed,
    ),
    "fixed-alike": Scenario(
        _fixed(4),
        score=lambda cell: (
            0.5 + 0.01 * cell.seed * (cell.seed == cell.optimizer) if cell.optimizer == 3 else 0.9 + 0.001 * cell.seed
        ),
    ),
    "fixed-alike-one-seed": Scenario(_fixed(2, seeds=1), score=lambda cell: 0.9),
    "fixed-constant-lead": Scenario(
        _fixed(2), score=lambda cell: round(0.9 + 0.01 * cell.optimizer + 0.001 * cell.seed, 4)
    ),
    "fixed-two-seeds": Scenario(_fixed(3, seeds=2), skill={1: 0.03}),
    "fixed-many-seeds": Scenario(_fixed(2, seeds=24), skill={1: 0.003}),
    "fixed-skewed": Scenario(
        _fixed(2, seeds=12),
        score=lambda cell: round(
            0.9 + 0.0001 * cell.seed + (0.08 if cell.seed == 5 else 0.0005 * cell.seed) * cell.optimizer, 4
        ),
    ),
    "fixed-of-a-time-budget": Scenario(
        _fixed(2, tasks=[TASK | {"budget": {"seconds": 5}}]),
        skill={1: 0.03},
        changes=lambda cell: {"environment": ENVIRONMENT | {"device_name": "another"}} if cell.seed == 3 else {},
    ),
}

UNFINISHED = {
    "running-tuning": Scenario(
        _tuned(tuning={"trials": 9, "method": "halving"}),
        status="running",
        skill={1: 0.03},
        end=lambda cell: JobStatus.RUNNING if cell.trial == 2 else None,
    ),
    "running-nothing": Scenario(_tuned(), status="running", end=lambda cell: JobStatus.QUEUED, seconds=None),
    "running-reporting": Scenario(
        _fixed(2, tasks=_batches(16, 32)), status="running", skill={1: 0.03}, end=_last_seed_unfinished
    ),
    "cancelled": Scenario(
        _fixed(3, tasks=[TARGETED, TASK | {"batch_size": 16}]),
        status="cancelled",
        skill={1: 0.03},
        end=_cancelled_early,
    ),
    "cancelled-when-complete": Scenario(_fixed(2), status="cancelled", skill={1: 0.03}),
    "failed-early": Scenario(_fixed(2), status="failed", end=_last_seed_unfinished),
    "failed-altogether": Scenario(_fixed(2), status="failed", end=lambda cell: Reason.TIMED_OUT),
    "failed-incomplete": Scenario(
        _tuned(tasks=[TARGETED, TASK | {"batch_size": 16}]),
        status="failed",
        skill={1: 0.03},
        end=_incomplete,
        changes=_messages,
    ),
    "failed-no-trial": Scenario(_tuned(), status="failed", end=_tuning_fails),
    "failed-not-comparable": Scenario(_fixed(3), status="failed", skill={1: 0.03}, changes=_environments),
    "failed-without-reuse": Scenario(
        _fixed(2, reuse=False), status="failed", end=lambda cell: Reason.WORKER_LOST if cell.seed == 2 else None
    ),
}

SEQUENTIAL = {
    "looks-decided-at-first": Scenario(_fixed(2, seeds=LOOKS, tasks=[TARGETED]), skill={1: 0.05}),
    "looks-decided-later": Scenario(_fixed(2, seeds=LOOKS), skill={1: 0.006}),
    "looks-undecided": Scenario(_fixed(3, seeds=LOOKS), skill={2: -0.1}),
    "looks-running": Scenario(
        _fixed(3, seeds=LOOKS),
        status="running",
        skill={1: 0.002, 2: -0.1},
        end=lambda cell: JobStatus.RUNNING if cell.seed >= 7 else None,
    ),
    "looks-before-the-first": Scenario(
        _fixed(2, seeds=LOOKS), status="running", end=lambda cell: JobStatus.RUNNING if cell.seed >= 2 else None
    ),
    "looks-lost-a-run": Scenario(
        _fixed(3, seeds=LOOKS),
        status="failed",
        skill={1: 0.004, 2: 0.002},
        end=lambda cell: Reason.OUT_OF_MEMORY if (cell.optimizer, cell.seed) == (2, 3) else None,
    ),
    "looks-diverged": Scenario(_fixed(3, seeds=LOOKS, metric="test_loss"), skill={1: 0.004}, end=_diverged),
    "looks-lost-a-run-while-another-is-tuned": Scenario(
        _tuned(seeds=LOOKS),
        status="running",
        end=_times_out_while_tuning,
    ),
    "looks-cancelled": Scenario(_fixed(2, seeds=LOOKS), status="cancelled", skill={1: 0.002}, end=_cancelled_early),
    "looks-of-two-tasks": Scenario(
        _fixed(2, seeds=LOOKS, tasks=_batches(16, 32)),
        score=lambda cell: round(
            0.9 + 0.04 * cell.optimizer * (1 - cell.task) + 0.001 * (cell.seed * (7 + 4 * cell.optimizer) % 11), 4
        ),
    ),
    "looks-nothing-yet": Scenario(_fixed(2, seeds=LOOKS), status="running", end=lambda cell: JobStatus.RUNNING),
    "looks-one-left-behind-leads": Scenario(
        _fixed(3, seeds=LOOKS),
        score=_left_behind,
    ),
    "any-decided": Scenario(_fixed(2, seeds={"max": 30, "looks": "any"}), skill={1: 0.02}),
    "any-undecided": Scenario(_fixed(3, seeds={"max": 8, "looks": "any"}), skill={2: -0.1}),
    "any-running": Scenario(_fixed(2, seeds={"max": 8, "looks": "any"}), status="running", end=_last_seed_unfinished),
    "any-lost-a-run": Scenario(
        _fixed(3, seeds={"max": 8, "looks": "any"}),
        status="failed",
        end=lambda cell: Reason.TIMED_OUT if (cell.optimizer, cell.seed) == (0, 3) else None,
    ),
}

TUNED = {
    "tuned": Scenario(_tuned(tasks=[TARGETED]), skill={1: 0.02}),
    "tuned-by-loss": Scenario(
        _tuned(metric="test_loss", tuning={"trials": 5, "seeds": 2}), skill={1: 0.02}, end=_diverged
    ),
    "tuned-by-halving": Scenario(_tuned(tuning={"trials": 9, "method": "halving"}, seeds=LOOKS), skill={1: 0.02}),
    "tuned-and-given": Scenario(_tuned(optimizers=[ADAM, KO, {"name": "sgd", "params": {"lr": 0.1}}]), skill={2: 0.02}),
    "tuned-by-unequal-grids": Scenario(
        _tuned(
            tuning={"method": "grid"},
            optimizers=[
                {"name": "adam", "space": {"lr": {"choice": [0.001, 0.01]}}},
                {
                    "name": "ko",
                    "space": {
                        "lr": {"choice": [0.0003, 0.001, 0.003, 0.01]},
                        "gamma": {"choice": [0.1, 1.0]},
                        "bounded": {"choice": [True, False]},
                    },
                },
            ],
        )
    ),
    "tuned-without-numbers": Scenario(
        _tuned(
            tuning={"method": "grid"},
            optimizers=[
                {"name": "adam", "params": {"lr": 0.01}},
                {"name": "ko", "space": {"bounded": {"choice": [True, False]}}},
            ],
        ),
    ),
    "tuned-with-a-failed-trial": Scenario(
        _tuned(), skill={1: 0.02}, end=lambda cell: Reason.ERROR if cell[2:4] == (2, 3) else None
    ),
    "tuned-all-diverged": Scenario(_tuned(), end=lambda cell: Reason.DIVERGED if cell.optimizer == 1 else None),
    "tuned-over-splits": Scenario(_tuned(tasks=[SPLIT, SPLIT | {"batch_size": 16}], vary=["split"]), skill={1: 0.02}),
    "over-splits": Scenario(_fixed(2, tasks=_batches(16, 32), vary=["split"]), skill={1: 0.02}),
    "reused": Scenario(_fixed(3, tasks=[TARGETED]), skill={1: 0.02}, changes=_reused),
}

CROSS_TASK = {
    "across-two-tasks": Scenario(_fixed(3, tasks=_batches(16, 32)), skill={1: 0.02, 2: -0.01}),
    "across-eight-tasks": Scenario(
        _fixed(3, tasks=_batches(*range(10, 18), target={"value": 0.9})), skill={1: 0.02, 2: -0.01}, noise=0.008
    ),
    "across-eight-tasks-by-chance": Scenario(
        _fixed(3, tasks=_batches(*range(10, 18)), metric="test_loss"), skill={2: -0.004}, noise=0.02
    ),
    "across-without-a-run": Scenario(
        _fixed(2, tasks=_batches(16, 32), metric="test_loss"),
        end=lambda cell: Reason.DIVERGED if (cell.task, cell.optimizer) == (1, 1) else None,
    ),
}

SCENARIOS = {**STUDY_SCENARIOS, **FIXED, **UNFINISHED, **SEQUENTIAL, **TUNED, **CROSS_TASK}
SCENARIOS["tuned-more-edges"] = replace(SCENARIOS["tuned"], score=lambda cell: round(0.9 + 0.002 * cell.trial, 4))
