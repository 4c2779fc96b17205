"""Names and classes of base optimizers."""

import pytest
import torch
from pytorch_optimizer import Lion

from ko import MuonAdamW, bases


def test_resolves_names_and_classes() -> None:
    assert bases.resolve("muon") == (MuonAdamW, {})
    assert bases.resolve("nadamw") == (torch.optim.NAdam, {"decoupled_weight_decay": True})
    assert bases.resolve(Lion) == (Lion, {})


@pytest.mark.parametrize(
    ("base", "error"), [("lbfgs", ValueError), (torch.optim.LBFGS, ValueError), (torch.nn.ReLU, TypeError)]
)
def test_raises_error_for_unsupported_base(base: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"base: .*(lbfgs|LBFGS|ReLU)"):
        bases.resolve(base)  # type: ignore[arg-type]
