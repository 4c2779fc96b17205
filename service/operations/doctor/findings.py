"""What a check says, and what all checks know of the installation they look at."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from service.config import Settings
from service.operations.embedded.postgres import database_url_of
from service.operations.run_file import owner, running

PREFIX = "KOTRAIN_"


class Level(StrEnum):
    """How bad it is. An error keeps something from working; a warning may."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(BaseModel):
    """One line of what was found; `remedy` says what to do, None where there is nothing to be done."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


class NotMade(Exception):
    """A check could not be made; the message says why. The others go on."""


def ok(text: str) -> Finding:
    """All is well."""
    return Finding(check="", level=Level.OK, text=text)


def warning(text: str, remedy: str | None = None) -> Finding:
    """Something may go wrong."""
    return Finding(check="", level=Level.WARNING, text=text, remedy=remedy)


def error(text: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding(check="", level=Level.ERROR, text=text, remedy=remedy)


# --- how they are told -----------------------------------------------------------------------------------------------

COLOURS = {Level.OK: 32, Level.WARNING: 33, Level.ERROR: 31}
"""Of ANSI terminals: green, yellow, red."""


def as_text(found: Sequence[Finding], *, is_coloured: bool) -> str:
    """A line for each finding, below it what to do, and at the end how many there are."""
    lines = []
    for (level, text, remedy), alike in groupby(found, lambda one: (one.level, one.text, one.remedy)):
        first, *others = [one.check for one in alike]  # several that could not be made for the same reason
        shown = f"{level:8}"
        lines.append(f"\033[{COLOURS[level]}m{shown}\033[0m" if is_coloured else shown)
        lines[-1] += f"{first:13}{text}" + (f"; nor are {', '.join(others)}" if others else "")
        if remedy:
            lines.append(f"{'':21}-> {remedy}")
    counts = Counter(one.level for one in found)
    told = [f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in (Level.ERROR, Level.WARNING)]
    return "\n".join([*lines, ", ".join(told)])


def as_json(found: Sequence[Finding]) -> str:
    """`{"findings": [...], "errors": 0, "warnings": 1}`."""
    counts = Counter(one.level for one in found)
    told = [one.model_dump(mode="json") for one in found]
    return json.dumps({"findings": told, "errors": counts[Level.ERROR], "warnings": counts[Level.WARNING]}, indent=2)


def in_words(problem: BaseException) -> str:
    """An exception in one line: what the driver said, without SQL and addresses."""
    return " ".join(str(getattr(problem, "orig", problem)).split()) or type(problem).__name__


def sized(size_bytes: float) -> str:
    """`1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def spell(seconds: float) -> str:
    """`5 min`, as people say how long."""
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if round(seconds) < length:
            return f"{seconds:.0f} {unit}"
        seconds /= length
    return f"{seconds:.0f} days"


# --- the installation ------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The installation that the environment names: an embedded one with its home, or external addresses."""

    settings: Settings
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Variables that are not valid, with the reason; the others are looked at with their defaults in place."""

    @classmethod
    def here(cls) -> Site:
        """That of this process's environment; variables that are not valid are left aside."""
        try:
            return cls(Settings())
        except ValidationError as invalid:
            faults = {f"{PREFIX}{str(one['loc'][0]).upper()}": one["msg"] for one in invalid.errors()}
        kept = os.environ.copy()
        try:
            for name in [name for name in kept if name.upper() in faults]:
                del os.environ[name]
            return cls(Settings(), [(name, why.removeprefix("Value error, ")) for name, why in faults.items()])
        finally:
            os.environ.update(kept)

    @property
    def home(self) -> Path:
        """The home, absolute and without links."""
        return self.settings.home.expanduser().absolute().resolve()

    @property
    def is_embedded(self) -> bool:
        """Whether `kotrain up` brings the servers."""
        return self.settings.database_url is None and self.settings.broker_url is None

    @property
    def owner(self) -> int | None:
        """The process that runs on this home; None where nothing runs."""
        return owner(self.home)

    @property
    def url(self) -> str | None:
        """Where `kotrain up` wrote that it answers; None where it did not."""
        found = running(self.home)
        return found.url if found else None

    @property
    def is_starting(self) -> bool:
        """Whether something holds the home whose API does not answer yet."""
        return self.is_embedded and self.owner is not None and self.url is None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection that only reads and waits for nothing long. Raises NotMade where there is no database."""
        engine = create_engine(
            self._database_url(),
            poolclass=NullPool,
            connect_args={
                "connect_timeout": 3,
                "application_name": "kotrain doctor",
                "options": "-c statement_timeout=15s -c lock_timeout=2s",
            },
        ).execution_options(postgresql_readonly=True)
        try:
            connection = engine.connect()
        except SQLAlchemyError as problem:
            raise NotMade(in_words(problem)) from problem
        with connection:
            try:
                yield connection
            except ProgrammingError as problem:
                if getattr(problem.orig, "sqlstate", "") not in {"42P01", "42703"}:  # undefined table, column
                    raise
                raise NotMade(f"the tables are not this version's ({in_words(problem)})") from problem

    def _database_url(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database_url
        if not self.is_embedded:
            raise NotMade("KOTRAIN_DATABASE_URL is not set")
        if self.owner is None:
            raise NotMade(f"nothing runs from {self.home}")
        try:
            return database_url_of(self.home)
        except OSError as problem:
            raise NotMade(f"the database's password cannot be read ({problem.strerror})") from problem
