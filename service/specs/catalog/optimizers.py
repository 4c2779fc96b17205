"""Optimizers: their parameters and colors, and the base optimizers of KO and the controls.

Their classes: `workers.training.optimizers`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, create_model, model_validator

from service.specs.base import Frozen, unfit
from service.specs.catalog.base import Choice, Decay, OneOf

OPTIMIZERS: dict[str, type[Optimizer]] = {}

COLOURS = 7
"""Number of colors in figures and pages, which define their values; the catalog uses indices from 0."""
BLUE, ORANGE, GREEN, PINK, OCHRE, SKY, GREY = range(COLOURS)

LearningRate = Annotated[float, Field(gt=0, le=100)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=100)]
Probability = Annotated[float, Field(ge=0, le=1)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]  # JSON has lists only


class Optimizer(Choice):
    """An optimizer."""

    table: ClassVar[dict[str, Any]] = OPTIMIZERS
    colour: ClassVar[int]
    """Index of its color. Optimizers outnumber colors: share one with an optimizer that it is rarely compared with."""
    base_of: ClassVar[tuple[Literal["ko", "control"], ...]] = ()
    """The optimizers that can wrap this one: each accepts this one's parameters in addition to its own."""


class SgdParams(Frozen):
    """Stochastic gradient descent with momentum."""

    lr: LearningRate = Field(0.1, description="Learning rate.")
    momentum: Decay = 0.9
    nesterov: bool = False
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise unfit("nesterov", "nesterov needs a momentum above 0")
        return self


class Sgd(Optimizer):
    """SGD with momentum."""

    title = "SGD with momentum"
    colour = GREEN
    base_of = ("ko", "control")
    name: Literal["sgd"] = "sgd"
    params: SgdParams = SgdParams()


class AdamParams(Frozen):
    """Adam (Kingma and Ba 2015)."""

    lr: LearningRate = Field(1e-3, description="Learning rate.")
    betas: Betas = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class Adam(Optimizer):
    """Adam."""

    title = "Adam (Kingma and Ba 2015)"
    colour = ORANGE
    base_of = ("ko", "control")
    name: Literal["adam"] = "adam"
    params: AdamParams = AdamParams()


class AdamWParams(AdamParams):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: WeightDecay = Field(0.01, description="Decoupled weight decay.")


class AdamW(Optimizer):
    """AdamW."""

    title = "AdamW (Loshchilov and Hutter 2019)"
    colour = OCHRE
    base_of = ("ko", "control")
    name: Literal["adamw"] = "adamw"
    params: AdamWParams = AdamWParams()


class NadamWParams(AdamWParams):
    """Adam with Nesterov momentum (Dozat 2016) and decoupled weight decay."""

    lr: LearningRate = Field(2e-3, description="Learning rate.")
    momentum_decay: Decay = 4e-3


class NadamW(Optimizer):
    """NAdamW."""

    title = "NAdam (Dozat 2016) with decoupled weight decay"
    colour = OCHRE
    base_of = ("ko",)
    name: Literal["nadamw"] = "nadamw"
    params: NadamWParams = NadamWParams()


class RadamParams(AdamParams):
    """Adam with rectified variance (Liu et al. 2020)."""


class Radam(Optimizer):
    """RAdam."""

    title = "RAdam (Liu et al. 2020)"
    colour = ORANGE
    base_of = ("ko",)
    name: Literal["radam"] = "radam"
    params: RadamParams = RadamParams()


class RmspropParams(Frozen):
    """RMSprop (Hinton 2012)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    alpha: Decay = 0.99
    eps: Epsilon = 1e-8
    momentum: Decay = 0.0
    centered: bool = False
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class Rmsprop(Optimizer):
    """RMSprop."""

    title = "RMSprop (Hinton 2012)"
    colour = PINK
    base_of = ("ko",)
    name: Literal["rmsprop"] = "rmsprop"
    params: RmspropParams = RmspropParams()


class AdagradParams(Frozen):
    """Adagrad (Duchi et al. 2011)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    lr_decay: Decay = 0.0
    eps: Epsilon = 1e-10
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class Adagrad(Optimizer):
    """Adagrad."""

    title = "Adagrad (Duchi et al. 2011)"
    colour = SKY
    base_of = ("ko",)
    name: Literal["adagrad"] = "adagrad"
    params: AdagradParams = AdagradParams()


class MuonParams(Frozen):
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, head, norms and biases."""

    lr: LearningRate = Field(0.02, description="Learning rate of the hidden matrices.")
    momentum: Decay = 0.95
    nesterov: bool = True
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")
    adamw_lr: LearningRate = Field(1e-3, description="Learning rate of the parameters that AdamW trains.")


class Muon(Optimizer):
    """Muon, with AdamW for all parameters but the hidden matrices."""

    title = "Muon (Jordan et al. 2024), AdamW for the rest"
    colour = PINK
    base_of = ("ko",)
    name: Literal["muon"] = "muon"
    params: MuonParams = MuonParams()


class LionParams(Frozen):
    """Lion (Chen et al. 2023)."""

    lr: LearningRate = Field(1e-4, description="Learning rate.")
    betas: Betas = (0.9, 0.99)
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")


class Lion(Optimizer):
    """Lion."""

    title = "Lion (Chen et al. 2023)"
    colour = SKY
    base_of = ("ko",)
    name: Literal["lion"] = "lion"
    params: LionParams = LionParams()


# --- optimizers that wrap a base optimizer ---------------------------------------------------------------------------

Options = TypeVar("Options", bound=Frozen)


def _on_each_base(wrapper: str, options: type[Options]) -> dict[str, type[Options]]:
    """Name of a base -> parameters of `wrapper` on it: the base's parameters, the options of `wrapper`, and `base`."""
    params_of: dict[str, type[Options]] = {}
    for name, entry in OPTIMIZERS.items():
        if wrapper in entry.base_of:
            params: Any = entry.model_fields["params"].annotation
            base: Any = (entry.model_fields["name"].annotation, name)
            params_of[name] = create_model(
                f"{wrapper.capitalize()}{params.__name__}",
                __base__=(options, params),
                __module__=__name__,
                __doc__=f"Parameters of `{wrapper}` with base optimizer `{name}`.",
                base=base,
            )
    return params_of


def _base_of(params: Any) -> Any:
    """The base optimizer named in the parameters; Adam by default."""
    return params.get("base", "adam") if isinstance(params, dict) else getattr(params, "base", None)


class Collision(Frozen):
    """The collision that KO adds before the step of its base optimizer."""

    collision: Literal["soft", "hard", "none"] = Field(
        "soft",
        description="soft: subtract from each row's gradient those of rows with similar weights and gradients. "
        "hard: random pairs of rows collide elastically. none: off. docs/ko.md gives the formulas.",
    )
    gamma: float = Field(0.1, ge=0, le=100, description="Strength of a soft collision.")
    bounded: bool = Field(False, description="Cap gamma so that a layer's gradient stays a descent direction.")
    rate: Probability = Field(
        0.5, description="Hard collisions: factor by which the probability of each collision is multiplied."
    )
    group_size: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Rows of a layer per random group; rows collide softly within their group. null: one group.",
    )
    embeddings: bool = Field(
        False,
        description="Apply collisions to word embeddings too; soft collisions then use random groups of 64 rows.",
    )
    fade: Literal["none", "cosine", "linear"] = Field(
        "none", description="Decay of gamma and rate to 0 over the budget; `none`: constant."
    )


KO_PARAMS = _on_each_base("ko", Collision)


class Ko(Optimizer):
    """KO, the kinetics-inspired optimizer, on a base optimizer."""

    title = "KO, kinetics-inspired (arXiv 2505.14777), on a base optimizer"
    colour = BLUE
    name: Literal["ko"] = "ko"
    params: Annotated[Any, OneOf(KO_PARAMS, by=_base_of)] = KO_PARAMS["adam"]()


STRENGTHS = {"noise": 0.1, "orthogonality": 1e-4}
"""Control -> default strength: KO's gamma, and the penalty chosen in benchmarks/claims.py."""


class ControlOptions(Frozen):
    """The simple alternative to a collision, applied before the step of the base optimizer."""

    control: Literal["noise", "orthogonality", "centralization"] = Field(
        "noise",
        description="noise: Gaussian noise of the same norm as the change made by a soft collision. orthogonality: the "
        "gradient of a penalty on rows of a layer that point in the same direction. centralization: subtract the mean "
        "from each row's gradient.",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=100,
        description="noise: gamma of the soft collision whose norm is matched (default 0.1). orthogonality: weight of "
        "the penalty, the sum of squared cosines over all pairs of rows (default 0.0001). centralization: must be "
        "null.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_strength(cls, params: Any) -> Any:
        if not isinstance(params, dict) or "strength" in params:
            return params
        return {**params, "strength": STRENGTHS.get(str(params.get("control", "noise")))}

    @model_validator(mode="after")
    def _strength_fits_control(self) -> Self:
        if self.control not in STRENGTHS and self.strength is not None:
            raise unfit("strength", f"{self.control} has no strength: omit it")
        if self.control in STRENGTHS and self.strength is None:
            raise unfit("strength", f"{self.control} requires a strength, such as {STRENGTHS[self.control]:g}")
        return self


CONTROL_PARAMS = _on_each_base("control", ControlOptions)


class Control(Optimizer):
    """A control for KO: noise, a penalty or centralized gradients on a base optimizer."""

    title = "control: a simple alternative to KO's collision, on a base optimizer"
    colour = GREY
    name: Literal["control"] = "control"
    params: Annotated[Any, OneOf(CONTROL_PARAMS, by=_base_of)] = CONTROL_PARAMS["adam"]()
