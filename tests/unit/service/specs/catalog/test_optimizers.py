"""Parameter models of KO and the controls on each base optimizer."""

import pytest

from service.specs.catalog.optimizer_params import Collision, ControlOptions
from service.specs.catalog.optimizers import CONTROL_PARAMS, KO_PARAMS, OPTIMIZERS


@pytest.mark.parametrize(
    ("wrapper", "params", "options"), [("ko", KO_PARAMS, Collision), ("control", CONTROL_PARAMS, ControlOptions)]
)
def test_parameters_are_those_of_base_and_wrapper_and_base_name(wrapper, params, options):
    assert list(params) == [name for name, entry in OPTIMIZERS.items() if wrapper in entry.base_of]
    for name, model in params.items():
        own = type(OPTIMIZERS[name]().params)
        assert model.__name__ == f"{wrapper.capitalize()}{own.__name__}"
        assert list(model.model_fields) == [*own.model_fields, *options.model_fields, "base"]
        assert model().base == name
        assert issubclass(model, own)
