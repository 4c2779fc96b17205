"""Optimizers of plug-ins: packages that an administrator installs beside kotrain, and trusts.

A package names its optimizers in the entry points `kotrain.optimizers`. Their parameters are read from the source, as
those of uploaded files are: listing them imports nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from service.code.source import Source
from service.errors import Invalid, KotrainError
from service.specs.catalog import uploaded
from service.specs.catalog.declaration import Declaration
from service.specs.catalog.libraries import LIBRARIES
from service.specs.catalog.model_libraries import MODEL_LIBRARIES
from service.specs.patterns import CODE_NAME, CODE_OWNER, WORDS
from service.specs.text import unknown_name

GROUP = "kotrain.optimizers"

RESERVED = frozenset({*LIBRARIES, *MODEL_LIBRARIES, "images", "tables", "texts"})
"""First parts of names that mean neither a plug-in nor a user's code."""


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

    @property
    def url(self) -> str:
        """The first address in the metadata of its distribution; empty for none."""
        return self.fact("Home-page") or self.fact("Project-URL").rpartition(",")[2].strip()


@cache
def plugins() -> dict[str, Plugin]:
    """Name without a version -> plug-in, in the order of the names."""
    found: dict[str, Plugin] = {}
    for entry_point in entry_points(group=GROUP):
        plugin = _read(entry_point)
        if plugin.name in found:
            names = " and ".join(
                sorted({_distribution(plugin.entry_point), _distribution(found[plugin.name].entry_point)})
            )
            plugin = _refused(plugin.name, entry_point, f"it is defined more than once, by {names}")
        found[plugin.name] = plugin
    return dict(sorted(found.items()))


def find(name: str) -> Declaration | None:
    """The declaration of a plug-in, also of a refused one; None if none of this name and version is installed."""
    plugin = plugins().get(name.partition("@")[0])
    return None if plugin is None or ("@" in name and name != plugin.declaration.name) else plugin.declaration


def packages() -> frozenset[str]:
    """The packages that have plug-ins, without names that no plug-in can have."""
    return frozenset(
        plugin.package
        for plugin in plugins().values()
        if plugin.package not in RESERVED and uploaded.is_uploaded(plugin.name)
    )


def why_missing(name: str) -> str | None:
    """Why `find` returns None for a name whose package has plug-ins; None for other names."""
    package = name.partition("/")[0]
    if package not in packages():
        return None
    plugin = plugins().get(name.partition("@")[0])
    if plugin is None:
        usable = [member.name for member in plugins().values() if member.declaration.refusal is None]
        return unknown_name("plug-in", name, [other for other in usable if other.startswith(f"{package}/")])
    if plugin.declaration.refusal is not None:
        return f"{plugin.name} cannot be used: {plugin.declaration.refusal}"
    return f"{name[:64]} is not installed here; the installed version is {plugin.declaration.name}"


def why_reserved(owner: str) -> str | None:
    """Why names that begin with `owner` do not mean code that a user of this name uploads; None if they do."""
    if owner in RESERVED:
        return f"names that begin with {owner}/ are reserved"
    return f"{owner} is a package of plug-ins on this server" if owner in packages() else None


def load(name: str) -> Callable[..., Any]:
    """The class of a plug-in, or its function `make`; imports the package.

    Raises ValueError if its modules are no longer those of this version.
    """
    plugin = plugins()[name.partition("@")[0]]
    module = import_module(plugin.entry_point.module)
    loaded: Callable[..., Any] = getattr(module, plugin.declaration.class_name)
    # After the import: modules that change before it are noticed, too.
    if _read(plugin.entry_point).declaration.name != plugin.declaration.name:
        raise ValueError(
            f"the package of {plugin.declaration.name} was changed after the worker had read it; restart the worker"
        )
    return loaded


# --- reading -------------------------------------------------------------------------------------------------------


def _read(entry_point: EntryPoint) -> Plugin:
    name = f"{entry_point.value.partition(':')[0].partition('.')[0].strip()}/{entry_point.name}"
    try:
        return Plugin(name, _declaration(name, entry_point), entry_point)
    except KotrainError as error:
        return _refused(name, entry_point, error.detail)
    except Exception as error:  # a package that is broken in an unforeseen way must not stop the server
        return _refused(name, entry_point, f"its source cannot be read: {type(error).__name__}: {error}")


def _refused(name: str, entry_point: EntryPoint, reason: str) -> Plugin:
    declared = Declaration(name=name, class_name="none", title=entry_point.value, refusal=reason)
    return Plugin(name, declared, entry_point)


def _distribution(entry_point: EntryPoint) -> str:
    """Name and version of the distribution that has an entry point."""
    assert entry_point.dist is not None, "entry points are read from distributions"
    return f"{entry_point.dist.name} {entry_point.dist.version}"


def _declaration(name: str, entry_point: EntryPoint) -> Declaration:
    """The declaration in the source. Raises Invalid or OSError."""
    package = name.partition("/")[0]
    if package in RESERVED:
        raise _invalid(f"the package cannot be named {package}: names that begin with {package}/ are reserved")
    if not re.fullmatch(CODE_OWNER, package):
        raise _invalid("the name of the package must be 1 to 24 letters, digits and _, starting with a letter")
    if not re.fullmatch(CODE_NAME, entry_point.name):
        raise _invalid(f"the name of the entry point {WORDS[f'^{CODE_NAME}$']}")
    file, modules = _files(package, entry_point.module.partition(".")[2])
    source = Source(file.name, file.read_text(encoding="utf-8-sig"), is_trusted=True)
    declared = source.declare(f"{name}@{_version(entry_point, modules)}", entry_point.attr)
    remark = f"is a plug-in of {_distribution(entry_point)}, and runs with all rights of the worker"
    return declared.model_copy(update={"remarks": (remark,)})


def _invalid(problem: str) -> Invalid:
    return Invalid.field("", problem)


def _files(package: str, module: str) -> tuple[Path, Mapping[str, Path]]:
    """The file of a module of a package, and all modules of the package by their path in it. Imports nothing."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise _invalid(f"the package {package} is not installed")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders and not module and spec.origin is not None:  # a single module
        return Path(spec.origin), {package: Path(spec.origin)}
    for folder in folders:
        path = folder.joinpath(*module.split(".")) if module else folder
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file, {
                    other.relative_to(root).as_posix(): other for root in folders for other in root.rglob("*.py")
                }
    raise _invalid(f"the package {package} has no source file of the module {module or package}")


def _version(entry_point: EntryPoint, modules: Mapping[str, Path]) -> str:
    """The first digits of a hash of all whose change can change results.

    These are the modules, the class or function that the entry point names, and the version of the distribution, which
    stands for what is not in modules, such as compiled code.
    """
    digest = hashlib.sha256(f"{_distribution(entry_point)} {entry_point.value}\n".encode())
    for name, file in sorted(modules.items()):
        digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:8]


uploaded.provide(find, why_missing)  # processes without a database know plug-ins, too
