"""The catalog file of the libraries' optimizers describes the installed libraries, and each optimizer can be built."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from service.specs.catalog import model_libraries
from service.specs.catalog.libraries import LIBRARIES, libraries
from service.specs.engine import LIBRARY_VERSIONS
from tests.thoroughness import IS_FULL
from workers.training import library_catalog
from workers.training.libraries import MODULES
from workers.training.library_catalog import classes, declare
from workers.training.library_signatures import describe

DECLARED = {declared.name: declared for library in libraries() for declared in library.optimizers}
SAMPLE = [
    "torch/asgd",
    "pytorch_optimizer/adahessian",
    "pytorch_optimizer/ranger21",
    "pytorch_optimizer/wsam",
    "schedulefree/sgdschedulefree",
]


def test_file_lists_the_installed_classes() -> None:
    assert list(classes()) == list(DECLARED), "run `make catalog`"
    installed = library_catalog.catalog(describe)
    for library, stored in zip(installed, libraries(), strict=True):
        assert (library.name, library.url, library.licence) == (stored.name, stored.url, stored.licence)


def test_engine_version_names_the_installed_versions() -> None:
    """A new version can change results: raise ENGINE_VERSION with it, so that no stored run is taken for a new one."""
    every = [*libraries(), *model_libraries.libraries()]
    stored = {library.name: library.version for library in every if library.name not in ("torch", "torchvision")}
    assert stored == LIBRARY_VERSIONS
    assert {name: version(name.replace("_", "-")) for name in LIBRARY_VERSIONS} == LIBRARY_VERSIONS
    assert tuple(MODULES) == LIBRARIES


def test_file_has_the_parameters_of_the_installed_classes() -> None:
    bounds = {"ge", "gt", "le", "lt"}
    for name, optimizer in classes().items():
        described, stored = describe(name, optimizer), DECLARED[name]
        assert (described.class_name, described.title) == (stored.class_name, stored.title), "run `make catalog`"
        names = {parameter.name for parameter in stored.parameters}
        kept = [each for each in described.parameters if each.name != "lr" or "lr" in names]  # a2grad does not use it
        assert [parameter.model_dump(exclude=bounds) for parameter in kept] == [
            parameter.model_dump(exclude=bounds) for parameter in stored.parameters
        ], f"{name} differs: run `make catalog`"


@pytest.mark.parametrize("name", list(DECLARED) if IS_FULL else SAMPLE)
def test_file_has_what_trying_shows(name: str) -> None:
    assert declare(name, classes()[name]) == DECLARED[name], "run `make catalog`"
