"""The catalog file of the libraries' optimizers describes the installed libraries, and each optimizer can be built."""

from __future__ import annotations

import pytest

from service.specs.catalog.libraries import libraries
from tests.thoroughness import IS_FULL
from workers.training import library_catalog
from workers.training.library_catalog import classes, declare, describe

DECLARED = {declared.name: declared for library in libraries() for declared in library.optimizers}
SAMPLE = ["torch/lbfgs", "pytorch_optimizer/soap", "pytorch_optimizer/adahessian", "schedulefree/sgdschedulefree"]


def test_file_lists_the_installed_classes() -> None:
    assert list(classes()) == list(DECLARED), "run `make catalog`"
    installed = library_catalog.catalog(describe)
    for library, stored in zip(installed, libraries(), strict=True):
        assert (library.name, library.url, library.licence) == (stored.name, stored.url, stored.licence)


def test_file_has_the_parameters_of_the_installed_classes() -> None:
    bounds = {"ge", "gt", "le", "lt"}
    for name, optimizer in classes().items():
        described, stored = describe(name, optimizer), DECLARED[name]
        assert (described.class_name, described.title) == (stored.class_name, stored.title), "run `make catalog`"
        assert [parameter.model_dump(exclude=bounds) for parameter in described.parameters] == [
            parameter.model_dump(exclude=bounds) for parameter in stored.parameters
        ], f"{name} differs: run `make catalog`"


@pytest.mark.parametrize("name", list(DECLARED) if IS_FULL else SAMPLE)
def test_file_has_what_trying_shows(name: str) -> None:
    assert declare(name, classes()[name]) == DECLARED[name], "run `make catalog`"
