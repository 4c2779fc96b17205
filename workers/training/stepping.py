"""Optimizer steps, with what an optimizer needs for them: closures, graphs of gradients, modes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from service.specs.catalog.declaration import Need


class Stepper:
    """Computes gradients and takes steps of an optimizer.

    Args:
        optimizer: the optimizer.
        parameters: the parameters that it trains.
        needs: what it needs, see `Need`.
        gradient_clip: maximum norm of the gradients; None: no clipping.
        scaler: scales losses of half precision; by default one that does nothing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        needs: Sequence[Need] = (),
        gradient_clip: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.optimizer, self._parameters = optimizer, list(parameters)
        self._needs, self._gradient_clip = needs, gradient_clip
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self._has_modes = "modes" in needs

    @property
    def lr(self) -> float | None:
        """Learning rate of the first parameter group; None if the optimizer has none."""
        lr = self.optimizer.param_groups[0].get("lr")
        return None if lr is None else float(lr)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, as part of a graph if the optimizer differentiates them again."""
        if "create_graph" in self._needs:
            # Not `backward(create_graph=True)`, which warns of reference cycles; `zero_grad` breaks them here.
            gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
            for p, gradient in zip(self._parameters, gradients, strict=True):
                p.grad = gradient
        else:
            torch.autograd.backward(self.scaler.scale(loss))

    def measure_gradients(self, is_needed: bool) -> dict[str, Tensor]:
        """Unscale the gradients, clip them if required, and return their norm before clipping as `grad_norm`.

        If the norm is not needed and nothing is clipped, do nothing.
        """
        if not is_needed and self._gradient_clip is None:
            return {}
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad.detach() for p in self._parameters if p.grad is not None])
        if self._gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._gradient_clip, norm)
        return {"grad_norm": norm}

    def step(self, loss: Tensor, evaluate: Callable[[], Tensor]) -> None:
        """Take a step, and delete the gradients.

        Args:
            loss: the loss at the weights before the step, whose gradients have been computed.
            evaluate: computes the loss at the present weights, for optimizers that need a closure.
        """
        if "closure" in self._needs:
            self.optimizer.step(self._closure(loss.detach(), evaluate))  # type: ignore[arg-type]  # a tensor is a number
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()

    def _closure(self, loss: Tensor, evaluate: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The function that evaluates the loss and its gradients at the present weights.

        Its first call returns those that exist, if the weights are still those before the step: LBFGS evaluates these
        first, SAM others.
        """
        weights = [p.detach().clone() for p in self._parameters]
        gradients = [p.grad for p in self._parameters]
        is_first = True

        def has_moved() -> bool:
            return any(
                p.grad is not gradient or not torch.equal(p, weight)
                for p, weight, gradient in zip(self._parameters, weights, gradients, strict=True)
            )

        def closure() -> Tensor:
            nonlocal is_first
            if is_first:
                is_first = False
                if not has_moved():
                    return loss
            with torch.enable_grad():
                self.optimizer.zero_grad()
                present_loss = evaluate()
                self.backward(present_loss)
            self.measure_gradients(is_needed=False)
            return present_loss.detach()

        return closure

    def start_training(self) -> None:
        """Call `train()` of an optimizer that has modes."""
        if self._has_modes:
            self.optimizer.train()  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Set the weights to those to evaluate, which schedule-free optimizers keep apart, and then back.

        The former weights are copied: computed back, they would differ by rounding, and a run that is interrupted in
        its validation would not continue bit for bit.
        """
        if not self._has_modes:
            yield
            return
        weights = [p.detach() for p in self._parameters]
        before = [weight.clone() for weight in weights]
        self.optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.optimizer.train()  # type: ignore[attr-defined]
            torch._foreach_copy_(weights, before)
