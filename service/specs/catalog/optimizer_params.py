"""Parameters of the built-in optimizers, and the options of those that wrap another one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from service.specs.base import Frozen, unfit
from service.specs.catalog.base import Decay, LearningRate

Epsilon = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=100)]
Probability = Annotated[float, Field(ge=0, le=1)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]  # JSON has lists only


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


class AdamParams(Frozen):
    """Adam (Kingma and Ba 2015)."""

    lr: LearningRate = Field(1e-3, description="Learning rate.")
    betas: Betas = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class AdamWParams(AdamParams):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: WeightDecay = Field(0.01, description="Decoupled weight decay.")


class NadamWParams(AdamWParams):
    """Adam with Nesterov momentum (Dozat 2016) and decoupled weight decay."""

    lr: LearningRate = Field(2e-3, description="Learning rate.")
    momentum_decay: Decay = 4e-3


class RadamParams(AdamParams):
    """Adam with rectified variance (Liu et al. 2020)."""


class RmspropParams(Frozen):
    """RMSprop (Hinton 2012)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    alpha: Decay = 0.99
    eps: Epsilon = 1e-8
    momentum: Decay = 0.0
    centered: bool = False
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class AdagradParams(Frozen):
    """Adagrad (Duchi et al. 2011)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    lr_decay: Decay = 0.0
    eps: Epsilon = 1e-10
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class MuonParams(Frozen):
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, head, norms and biases."""

    lr: LearningRate = Field(0.02, description="Learning rate of the hidden matrices.")
    momentum: Decay = 0.95
    nesterov: bool = True
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")
    adamw_lr: LearningRate = Field(1e-3, description="Learning rate of the parameters that AdamW trains.")


class LionParams(Frozen):
    """Lion (Chen et al. 2023)."""

    lr: LearningRate = Field(1e-4, description="Learning rate.")
    betas: Betas = (0.9, 0.99)
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")


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


class BiMaxwellOptions(Frozen):
    """The two moving averages of the gradient that replace the base's momentum."""

    fast: Decay = Field(0.85, description="Decay of the fast average.")
    slow: Decay = Field(0.98, description="Decay of the slow average.")
    share: Probability = Field(0.4385, description="Weight of the fast average in the mixture.")
    mix: Probability = Field(1.0, description="Weight of the mixture beside the gradient itself; 1: the mixture alone.")

    @model_validator(mode="after")
    def _slow_is_slower(self) -> Self:
        if self.fast > self.slow:
            raise unfit("fast", f"fast must be at most slow, which is {self.slow:g}")
        return self


WRAPPER_PARAMS = {
    "ko": {"base", *Collision.model_fields, "seed", "foreach", "row_dim", "blocks", "skip_idle"},
    "bimaxwell": {"base", *BiMaxwellOptions.model_fields},
}
"""Wrapper -> the names of its parameters beside those of its base, also of those that jobs do not set."""

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
