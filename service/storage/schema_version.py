"""Compatibility of code and schema versions.

Migrations expand the schema first and contract it in a later release, so that rolling restarts work: older code may use
a newer schema if the schema allows it (`compatibility.oldest_code`). A version is the number of the newest migration:
for code, of those it contains; for a schema, of those applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

import migrations

if TYPE_CHECKING:
    from alembic.config import Config


class Incompatible(Exception):
    """Code and schema are incompatible. The message is one line and includes the remedy."""


@dataclass(frozen=True)
class Schema:
    """The version of a schema, and of the oldest code that may use it."""

    number: int
    oldest_code: int


def alembic() -> Config:
    """Alembic's configuration."""
    from alembic.config import Config  # noqa: PLC0415 (0.1 s that only a migration needs)

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


@lru_cache(maxsize=1)
def code_number() -> int:
    """The schema version that this code is written for: the number in the file name of its newest migration."""
    versions = Path(migrations.__file__).parent / "versions"
    return max(int(file.name.partition("_")[0]) for file in versions.glob("[0-9]*_*.py"))


def read(connection: Connection) -> Schema | None:
    """The schema of the database; None if it has none. Raises Incompatible for that of another program."""
    if not _has(connection, "alembic_version"):
        return None
    name = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if name is None:
        return None
    if not name.isdecimal():
        raise Incompatible(f"the database belongs to another program (version {name}): use a separate one")
    has_row = _has(connection, "compatibility")  # since version 3
    oldest = connection.scalar(text("SELECT oldest_code FROM compatibility")) if has_row else None
    return Schema(int(name), int(name) if oldest is None else oldest)


def check(connection: Connection) -> None:
    """Raise Incompatible unless the schema is the code's own, or a newer one that allows this code."""
    schema, code = read(connection), code_number()
    if schema is None:
        raise Incompatible("the database has no schema yet: run `kotrain migrate`")
    if schema.number < code:
        raise Incompatible(
            f"the database has schema {schema.number}, this kotrain requires {code}: run `kotrain migrate`"
        )
    refuse_newer(schema)


def refuse_newer(schema: Schema, of: str = "database") -> None:
    """Raise Incompatible if the schema (of the database or of a backup) is too new for this code."""
    if schema.oldest_code > code_number():
        raise Incompatible(
            f"this kotrain supports schema {code_number()}, the {of} requires {schema.oldest_code} or newer: "
            "install a newer version"
        )


def _has(connection: Connection, table: str) -> bool:
    return connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None
