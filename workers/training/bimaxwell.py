"""Bi-Maxwell momentum: two moving averages of the gradient, a fast and a slow one, in place of a base's momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class BiMaxwell(Optimizer):
    r"""Step a base optimizer with a mixture of two moving averages in place of the gradient.

    .. math::
        m = s\, \hat m_{fast} + (1 - s)\, \hat m_{slow}, \qquad g' = (1 - \mu) g + \mu m

    :math:`\hat m` are exponential moving averages of the gradient with decays `fast` and `slow`, divided by
    :math:`1 - \beta^t`, as Adam's first moment is. The base takes g' for its gradient, so that its second moment, if it
    has one, is that of the mixture. The defaults are those of the records of modded-nanogpt's track 3 since July 2026
    (pull requests 339 and 340), which switch to this momentum after 1,000 steps; here it is used from the first.

    Args:
        base: the optimizer that does the step; its own momentum should be 0.
        fast: decay of the fast average, in [0, 1).
        slow: decay of the slow average, in [0, 1).
        share: weight of the fast average, in [0, 1].
        mix: weight of the mixture beside the gradient itself, in [0, 1]; 1: the mixture alone.
    """

    def __init__(
        self, base: Optimizer, fast: float = 0.85, slow: float = 0.98, share: float = 0.4385, mix: float = 1.0
    ) -> None:
        super().__init__([{**group} for group in base.param_groups], dict(base.defaults))
        self.base = base
        self._decays, self._share, self._mix = (fast, slow), share, mix
        self.param_groups = base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the averages, then step the base.

        Args:
            closure: reevaluates the model and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        given = {p: p.grad for group in self.param_groups for p in group["params"] if p.grad is not None}
        for p, gradient in given.items():
            p.grad = self._mixture(self.state[p], gradient)
        try:
            self.base.step()
        finally:
            for p, gradient in given.items():
                p.grad = gradient
        return loss

    def _mixture(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        if "averages" not in state:
            state["averages"] = [torch.zeros_like(gradient) for _ in self._decays]
            state["averaged"] = 0
        state["averaged"] += 1
        fast, slow = (
            average.lerp_(gradient, 1 - decay) / (1 - decay ** state["averaged"])
            for average, decay in zip(state["averages"], self._decays, strict=True)
        )
        mixture = slow.lerp_(fast, self._share)
        return mixture if self._mix == 1 else gradient.lerp(mixture, self._mix)

    def state_dict(self) -> dict[str, Any]:
        """The state of the averages, and that of the base as `base`."""
        return {**super().state_dict(), "base": self.base.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of the averages and of the base, which may have its own way to do so."""
        own = dict(state_dict)
        self.base.load_state_dict(own.pop("base"))
        super().load_state_dict(own)
        self.param_groups = self.base.param_groups

    def train(self) -> None:
        """Set the base to training mode if it has one."""
        getattr(self.base, "train", lambda: None)()

    def eval(self) -> None:
        """Set the base to evaluation mode if it has one."""
        getattr(self.base, "eval", lambda: None)()
