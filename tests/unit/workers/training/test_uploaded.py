"""Uploaded optimizers as the engine builds them: parameters with the names of the builders' own."""

from hashlib import sha256

import pytest
from pydantic import ValidationError
from torch import nn

from service.code.source import Source
from service.specs.catalog.optimizers import BiMaxwell, Ko, Optimizer
from workers.messages import Code
from workers.training import optimizers, uploaded

SOURCE = """
from torch.optim import SGD

class Mine(SGD):
    def __init__(self, params, lr: float = 0.1, {name}: int = 1):
        super().__init__(params, lr=lr)
        self.given = {name}
"""


def received(name: str) -> str:
    """The name of an optimizer with a parameter of this name."""
    source = SOURCE.format(name=name)
    declared = Source("mine.py", source).declare(f"ada/mine@{sha256(source.encode()).hexdigest()[:8]}")
    uploaded.receive([Code(declared, "mine.py", source)])
    return declared.name


def chosen(wrapper: type[Optimizer], name: str) -> Optimizer:
    return wrapper.model_validate(
        {"name": wrapper.model_fields["name"].default, "params": {"base": received(name), name: 7}}
    )


@pytest.mark.parametrize(("wrapper", "name"), [(BiMaxwell, "seed"), (BiMaxwell, "model"), (Ko, "total_steps")])
def test_base_gets_its_own_parameter(wrapper: type[Optimizer], name: str) -> None:
    built = optimizers.build(chosen(wrapper, name), nn.Linear(3, 2), 1, 10)
    assert built.base.given == 7


@pytest.mark.parametrize("name", ["seed", "foreach", "blocks"])
def test_base_with_a_parameter_of_ko_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"ko, which has parameter {name} of its own"):
        chosen(Ko, name)
