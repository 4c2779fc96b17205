"""Which versions of the code and of the schema go together.

Migrations expand first and contract in a later release, so that a rolling restart works: older code goes on with a
newer schema, for as long as the schema's own row (`compatibility.oldest_code`) says so. A version is the number of the
newest migration, of those that the code brings or of those that the database has seen.
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
    """The code and the schema do not go together; the message is one line that says what to do."""


@dataclass(frozen=True)
class Schema:
    """What a database says of itself: its number, and that of the oldest code that may use it."""

    number: int
    oldest_code: int


def alembic() -> Config:
    """Alembic's configuration: our own migrations."""
    from alembic.config import Config  # noqa: PLC0415 (0.1 s that only a migration needs)

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


@lru_cache(maxsize=1)
def code_number() -> int:
    """The schema that this code is written for: the number of its newest migration, whose file begins with it."""
    versions = Path(migrations.__file__).parent / "versions"
    return max(int(file.name.partition("_")[0]) for file in versions.glob("[0-9]*_*.py"))


def read(connection: Connection) -> Schema | None:
    """The schema of the database; None where there is none. `Incompatible` where it is not ours."""
    if not _has(connection, "alembic_version"):
        return None
    name = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if name is None:
        return None
    if not name.isdecimal():
        raise Incompatible(f"the database belongs to another program (version {name}): use a separate one")
    stated = _has(connection, "compatibility")  # since 3; an older schema is known by its number alone
    oldest = connection.scalar(text("SELECT oldest_code FROM compatibility")) if stated else None
    return Schema(int(name), int(name) if oldest is None else oldest)


def check(connection: Connection) -> None:
    """Raise `Incompatible` unless this code can work with the schema: its own, or a newer one that says so."""
    schema, known = read(connection), code_number()
    if schema is None:
        raise Incompatible("the database has no schema yet: run `kotrain migrate`")
    if schema.number < known:
        raise Incompatible(
            f"the database has schema {schema.number}, this kotrain requires {known}: run `kotrain migrate`"
        )
    refuse_newer(schema)


def refuse_newer(schema: Schema, of: str = "database") -> None:
    """Raise `Incompatible` where the schema (of the database, of a backup) is too new for this code."""
    if schema.oldest_code > code_number():
        raise Incompatible(
            f"this kotrain supports schema {code_number()}, the {of} requires {schema.oldest_code} or newer: "
            "install a newer version"
        )


def _has(connection: Connection, table: str) -> bool:
    return connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None
