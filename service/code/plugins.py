"""Optimizers of plug-ins: packages that an administrator installs beside kotrain, and trusts.

A package names its optimizers in the entry points `kotrain.optimizers`. Their parameters are read from the source, as
those of uploaded files are: listing them imports nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from service.code.source import Source
from service.errors import KotrainError
from service.specs.catalog import uploaded
from service.specs.catalog.declaration import Declaration

GROUP = "kotrain.optimizers"


@dataclass(frozen=True)
class Plugin:
    """An optimizer of an installed package."""

    name: str
    """Package and name of the entry point, such as `our_lab/sign_momentum`."""
    declaration: Declaration
    """Its name ends with a hash of the package's modules, as that of uploaded code does with one of the file."""
    entry_point: EntryPoint

    @property
    def package(self) -> str:
        """The package that Python imports."""
        return self.name.partition("/")[0]

    def fact(self, *fields: str) -> str:
        """The first of these fields that the metadata of its distribution has, such as `Version`; empty for none."""
        distribution = self.entry_point.dist
        assert distribution is not None, "entry points are read from distributions"
        found = [value for field in fields for value in distribution.metadata.get_all(field) or ()]
        return found[0] if found else ""


@cache
def plugins() -> dict[str, Plugin]:
    """Name without a version -> plug-in, in the order of the names."""
    found = (_read(entry_point) for entry_point in entry_points(group=GROUP))
    return {plugin.name: plugin for plugin in sorted(found, key=lambda plugin: plugin.name)}


def find(name: str) -> Declaration | None:
    """The declaration of a plug-in, also of a refused one; None if none of this name and version is installed."""
    plugin = plugins().get(name.partition("@")[0])
    return None if plugin is None or ("@" in name and name != plugin.declaration.name) else plugin.declaration


def is_plugin(name: str) -> bool:
    """Whether a plug-in of this name is installed, in any version."""
    return name.partition("@")[0] in plugins()


def packages() -> frozenset[str]:
    """The packages that have plug-ins."""
    return frozenset(plugin.package for plugin in plugins().values())


def load(name: str) -> Callable[..., Any]:
    """The class of a plug-in, or its function `make`; imports the package."""
    plugin = plugins()[name.partition("@")[0]]
    module = import_module(plugin.entry_point.module)
    loaded: Callable[..., Any] = getattr(module, plugin.entry_point.attr)
    return loaded


# --- reading -------------------------------------------------------------------------------------------------------


def _read(entry_point: EntryPoint) -> Plugin:
    package, _, rest = entry_point.module.partition(".")
    name = f"{package}/{entry_point.name}"
    try:
        file, modules = _files(package, rest)
        declared = Source(file.name, file.read_text(encoding="utf-8-sig"), is_trusted=True).declare(
            f"{name}@{_version(modules)}", entry_point.attr
        )
        problem = (
            None if uploaded.is_uploaded(declared.name) else "its name is not PACKAGE/NAME with lower-case letters"
        )
    except (OSError, UnicodeDecodeError, ImportError, ValueError) as error:
        declared, problem = _unreadable(name, entry_point), f"its source cannot be read: {error}"
    except KotrainError as error:
        declared, problem = _unreadable(name, entry_point), error.detail
    # The administrator, who trusts it, has tried it with `kotrain code test`.
    return Plugin(name, declared.model_copy(update={"refusal": problem, "is_resumable": True}), entry_point)


def _unreadable(name: str, entry_point: EntryPoint) -> Declaration:
    return Declaration(name=name, class_name=entry_point.attr or "none", title=entry_point.value)


def _files(package: str, module: str) -> tuple[Path, list[Path]]:
    """The file of a module of a package, and all modules of the package. Imports nothing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"there is no package {package}")
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:  # a single module
        return origin, [origin]
    root = origin.parent
    path = root.joinpath(*module.split(".")) if module else root
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file, sorted(root.rglob("*.py"))


def _version(modules: Iterable[Path]) -> str:
    """The first digits of a hash of the modules, whose change can change results."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(hashlib.sha256(module.read_bytes()).digest())
    return digest.hexdigest()[:8]


uploaded.provide(find)  # processes without a database know plug-ins, too
