"""Predefined studies: the experiments that the reviews of the KO paper asked for, as requests for comparisons.

A study is one request to `POST /v1/comparisons`, built for the data sets that are present. `small` runs in minutes on
two cores, on digits and Snips; `full` uses every data set, more optimizers, trials and seeds, and needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kotrain.first_look import first_look

if TYPE_CHECKING:
    from service.comparisons.design.requests import ComparisonRequest

Budget = Literal["small", "full"]
Request = dict[str, Any]

CONDENSED = 0.1
"""Factor of the initial weights in the condensed initialization (docs/ko.md)."""


@dataclass(frozen=True)
class Study:
    """A research question and the comparison that answers it."""

    name: str
    title: str
    make: Callable[[Budget, Collection[str]], Request]

    def request(self, budget: Budget, present: Collection[str]) -> Request:
        """The request body for these data sets."""
        body = {"name": f"{self.name} ({budget})", **self.make(budget, present)}
        return {**body, "tags": {"study": self.name, "budget": budget}}

    def validated(self, budget: Budget, present: Collection[str]) -> ComparisonRequest:
        """The request with all defaults filled in."""
        from service.comparisons.design.requests import ComparisonRequest

        return ComparisonRequest.model_validate(self.request(budget, present))


# --- optimizers ------------------------------------------------------------------------------------------------------

ADAM_RATES = {"lr": {"log_uniform": [3e-4, 3e-2]}}
SGD_RATES = {"lr": {"log_uniform": [1e-2, 1.0]}}
GAMMA, RATE = {"gamma": {"log_uniform": [0.01, 1.0]}}, {"rate": {"uniform": [0.1, 0.9]}}


def _adam(**changes: Any) -> Request:
    return {"label": "Adam", "name": "adam", "space": ADAM_RATES, **changes}


def _ko(form: str, base: str = "adam") -> Request:
    """A variant of KO; its strength is tuned together with the learning rate, within the same number of trials."""
    rates = SGD_RATES if base == "sgd" else ADAM_RATES
    shape = {"collision": "hard"} if form == "hard" else {"collision": "soft", "bounded": form == "bounded"}
    on = "" if base == "adam" else f" on {base.upper()}"
    return {
        "label": f"KO {form}{on}",
        "name": "ko",
        "params": {"base": base, **shape},
        "space": {**rates, **(RATE if form == "hard" else GAMMA)},
    }


def _control(kind: str, title: str, **space: Any) -> Request:
    params = {"base": "adam", "control": kind}
    return {"label": title, "name": "control", "params": params, "space": {**ADAM_RATES, **space}}


SGD = {"label": "SGD", "name": "sgd", "space": SGD_RATES}
ADAMW = {
    "label": "AdamW",
    "name": "adamw",
    "space": {**ADAM_RATES, "weight_decay": {"log_uniform": [1e-3, 1.0]}},
}
"""Also the control for weight decay, which is therefore tuned."""
MUON = {
    "label": "Muon",
    "name": "muon",
    "space": {"lr": {"log_uniform": [2e-3, 0.2]}, "adamw_lr": {"log_uniform": [3e-4, 3e-2]}},
}
LION = {"label": "Lion", "name": "lion", "space": {"lr": {"log_uniform": [3e-5, 3e-3]}}}
NOISE = _control("noise", "Adam + noise", strength={"log_uniform": [1e-3, 1.0]})
ORTHOGONALITY = _control("orthogonality", "Adam + orthogonality", strength={"log_uniform": [1e-5, 1e-2]})

UNTUNED: list[Request] = [
    {"label": "SGD", "name": "sgd"},
    {"label": "Adam", "name": "adam"},
    {"label": "Muon", "name": "muon"},
    {"label": "KO soft", "name": "ko", "params": {"collision": "soft"}},
    {"label": "KO bounded", "name": "ko", "params": {"collision": "soft", "bounded": True}},
    {"label": "KO hard", "name": "ko", "params": {"collision": "hard"}},
]
MORE_UNTUNED: list[Request] = [
    {"label": "AdamW", "name": "adamw"},
    {"label": "Lion", "name": "lion"},
    {"label": "KO soft in groups of 64", "name": "ko", "params": {"collision": "soft", "group_size": 64}},
]
"""With default parameters: the time of a step does not depend on them."""


# --- tasks -----------------------------------------------------------------------------------------------------------

SMALL_TEXTCNN = {"embedding": 64, "channels": 32}


def _scaled(model: str, scale: float, **params: Any) -> Request:
    return {"name": model, "params": {**params, "init_scale": scale}}


DIGITS = {"name": "digits", "params": {"split": "fixed_test"}}
"""The claims are tuned and reported on several splits, so the test data must be the same in all of them."""


def _name(task: Request) -> str:
    """The name of the task's data set."""
    dataset: str | Request = task["dataset"]
    return dataset if isinstance(dataset, str) else str(dataset["name"])


def _both_initializations(task: Request, model: str, **params: Any) -> list[Request]:
    """The task twice: with the ordinary and with the condensed initialization."""
    return [
        {**task, "label": f"{_name(task)} ({name})", "model": _scaled(model, scale, **params)}
        for name, scale in (("ordinary", 1.0), ("condensed", CONDENSED))
    ]


def _small_tasks(present: Collection[str]) -> list[Request]:
    digits = {"dataset": DIGITS, "budget": {"epochs": 30}, "target": {"value": 0.93}}
    snips = {"dataset": "snips", "budget": {"epochs": 3}, "target": {"value": 0.9}}
    tasks = _both_initializations(digits, "mlp")
    return tasks + (_both_initializations(snips, "textcnn", **SMALL_TEXTCNN) if "snips" in present else [])


def _full_tasks(present: Collection[str]) -> list[Request]:
    """Each data set present, with a standard model for it."""
    images = {"schedule": "cosine", "batch_size": 128}
    ordinary_only: list[Request] = [
        {"dataset": "cifar10", "model": "resnet18", "budget": {"epochs": 30}, "target": {"value": 0.85}, **images},
        {"dataset": "cifar100", "model": "resnet34", "budget": {"epochs": 30}, "target": {"value": 0.5}, **images},
        {"dataset": "imagenet", "model": "resnet50", "budget": {"epochs": 30}, "target": {"value": 0.6}, **images},
        {"dataset": "imdb", "model": "lstm", "budget": {"epochs": 5}, "target": {"value": 0.85}},
        {"dataset": "snips", "model": "transformer", "budget": {"epochs": 10}, "target": {"value": 0.95}},
    ]
    both: list[tuple[Request, str]] = [
        ({"dataset": DIGITS, "budget": {"epochs": 30}, "target": {"value": 0.93}}, "mlp"),
        ({"dataset": "mnist", "budget": {"epochs": 10}, "target": {"value": 0.98}, **images}, "cnn"),
        ({"dataset": "fashion_mnist", "budget": {"epochs": 10}, "target": {"value": 0.9}, **images}, "cnn"),
        ({"dataset": "cifar10", "budget": {"epochs": 20}, "target": {"value": 0.7}, **images}, "cnn"),
        ({"dataset": "snips", "budget": {"epochs": 10}, "target": {"value": 0.95}}, "textcnn"),
    ]
    tasks = [task for task, model in both if _name(task) in present for task in _both_initializations(task, model)]
    return tasks + [task for task in ordinary_only if _name(task) in present]


# --- studies ---------------------------------------------------------------------------------------------------------


def _first_look(budget: Budget, present: Collection[str]) -> Request:
    return first_look()


def _claims(budget: Budget, present: Collection[str]) -> Request:
    if budget == "small":
        return {
            "tasks": _small_tasks(present),
            "optimizers": [SGD, _adam(), ADAMW, MUON, _ko("soft"), _ko("hard")],
            "tuning": {"trials": 4},
            "seeds": 5,
            "vary": ["seed", "split"],
        }
    forms = [_ko(form, base) for base in ("adam", "sgd") for form in ("soft", "bounded", "hard")]
    return {
        "tasks": _full_tasks(present),
        "optimizers": [SGD, _adam(), ADAMW, MUON, LION, *forms, NOISE, ORTHOGONALITY],
        "tuning": {"trials": 16},
        "seeds": {"max": 20, "looks": [5, 10, 20]},
        "vary": ["seed", "split"],
    }


def _ablation(budget: Budget, present: Collection[str]) -> Request:
    """A grid of strength and learning rate for each variant of KO, at several widths, with Adam as the baseline."""
    small = budget == "small"
    rates = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2] if small else [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    gammas = [0.03, 0.1, 0.3] if small else [0.01, 0.03, 0.1, 0.3, 1.0]
    hard_rates = [0.25, 0.5, 0.75] if small else [0.1, 0.25, 0.5, 0.75, 1.0]
    lr = {"lr": {"choice": rates}}
    strength = {"soft": {"gamma": {"choice": gammas}}, "bounded": {"gamma": {"choice": gammas}},
                "hard": {"rate": {"choice": hard_rates}}}  # fmt: skip
    forms = [{**_ko(form), "space": {**lr, **space}} for form, space in strength.items()]
    widths = (32, 256) if small else (32, 128, 512, 2048)
    tasks = [
        {
            "label": f"width {width} ({name})",
            "dataset": "digits",
            "model": _scaled("mlp", scale, hidden=[width, width]),
            "budget": {"epochs": 30},
            "target": {"value": 0.93},
        }
        for width in widths
        for name, scale in (("ordinary", 1.0), ("condensed", CONDENSED))
    ]
    return {
        "tasks": tasks,
        "optimizers": [_adam(space=lr), *forms],
        "tuning": {"method": "grid", "seeds": 2 if small else 5},
        "seeds": 5 if small else 20,
    }


def _cost(budget: Budget, present: Collection[str]) -> Request:
    """The same small number of steps with each optimizer, on networks of increasing size."""
    small = budget == "small"
    return {
        "tasks": _networks(present, small=small),
        "optimizers": UNTUNED if small else [*UNTUNED, *MORE_UNTUNED],
        "seeds": 5,
        "metric": "samples_per_second",
    }


def _networks(present: Collection[str], *, small: bool) -> list[Request]:
    tasks: list[Request] = [
        {
            "label": f"digits MLP width {width}",
            "dataset": "digits",
            "model": _scaled("mlp", 1.0, hidden=[width, width]),
            "budget": {"steps": 300 if small else 1000},
        }
        # On two cores Muon takes a minute a run at width 1024.
        for width in ((64, 256, 512) if small else (64, 256, 1024, 4096))
    ]
    if "snips" in present:
        tasks.append({"label": "snips TextCNN", "dataset": "snips", "model": "textcnn", "budget": {"steps": 100}})
    if not small:
        images = [("cifar10", "resnet18"), ("cifar100", "resnet34"), ("imagenet", "resnet50")]
        tasks += [
            {"label": f"{name} {model}", "dataset": name, "model": model, "batch_size": 128, "budget": {"steps": 200}}
            for name, model in images
            if name in present
        ]
    return tasks


STUDIES = {
    study.name: study
    for study in (
        Study("first-look", "KO against Adam and SGD on digits: the reference table of docs/ko.md", _first_look),
        Study("ko-claims", "Does KO beat tuned baselines, with ordinary and condensed initialization?", _claims),
        Study("ko-ablation", "How does KO depend on its strength, the learning rate and the network width?", _ablation),
        Study("ko-cost", "How much time and memory does a step of KO cost, by network size?", _cost),
    )
}
