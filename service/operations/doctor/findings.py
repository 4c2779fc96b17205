"""Findings of checks, their output, and the installation that the checks examine."""

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
from rich.console import Console
from rich.text import Text
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from service.config import Settings
from service.home import owner, running
from service.operations.embedded.postgres import database_url_of
from service.specs.text import counted

PREFIX = "KOTRAIN_"


class Level(StrEnum):
    """Severity: an error prevents something from working, a warning may."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(BaseModel):
    """One result of a check; `remedy` is the suggested fix, None if nothing needs to be done."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


class NotChecked(Exception):
    """A check could not run; the message gives the reason. The other checks continue."""


def ok(text: str) -> Finding:
    """A check that passed."""
    return Finding(check="", level=Level.OK, text=text)


def warning(text: str, remedy: str | None = None) -> Finding:
    """A possible problem."""
    return Finding(check="", level=Level.WARNING, text=text, remedy=remedy)


def error(text: str, remedy: str) -> Finding:
    """A problem."""
    return Finding(check="", level=Level.ERROR, text=text, remedy=remedy)


# --- output ----------------------------------------------------------------------------------------------------------

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
"""Colors of the levels on a terminal."""


def print_text(findings: Sequence[Finding]) -> None:
    """Print one line per finding, followed by its remedy, and the number of errors and warnings at the end."""
    console = Console(highlight=False)
    for (level, text, remedy), group in groupby(
        findings, lambda finding: (finding.level, finding.text, finding.remedy)
    ):
        first, *others = [finding.check for finding in group]  # several that could not run for the same reason
        rest = f"; nor are {', '.join(others)}" if others else ""
        console.print(Text.assemble((f"{level:8}", STYLES[level]), f"{first:13}{text}{rest}"), soft_wrap=True)
        if remedy:
            console.print(Text(f"{'':21}-> {remedy}"), soft_wrap=True)
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(counted(counts[level], level) for level in (Level.ERROR, Level.WARNING)))


def as_json(findings: Sequence[Finding]) -> str:
    """`{"findings": [...], "errors": 0, "warnings": 1}`."""
    counts = Counter(finding.level for finding in findings)
    rows = [finding.model_dump(mode="json") for finding in findings]
    return json.dumps({"findings": rows, "errors": counts[Level.ERROR], "warnings": counts[Level.WARNING]}, indent=2)


def in_words(problem: BaseException) -> str:
    """An exception in one line: the driver's message, without SQL and addresses."""
    return " ".join(str(getattr(problem, "orig", problem)).split()) or type(problem).__name__


# --- the installation ------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """The installation that the environment describes: embedded servers in a home, or external addresses."""

    settings: Settings
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Invalid variables and the reason; the other checks use their defaults."""
    overruled: list[str] = field(default_factory=list)
    """Variables whose values the running stack does not share."""

    @classmethod
    def here(cls) -> Site:
        """The installation of this process's environment, with the settings of the stack that runs from its home."""
        site = cls._of_environment()
        stack = running(site.home)
        if stack is None or site.owner != stack.pid:
            return site
        names = stack.settings.keys() & Settings.model_fields.keys()
        theirs = {name: stack.settings[name] for name in sorted(names)}
        mine = site.settings.model_dump(mode="json", include=names)
        try:
            # The addresses and the home are those of the environment, everything else is the stack's.
            settings = Settings(**site.settings.model_dump(include={"home", "database_url", "broker_url"}) | theirs)
        except ValidationError:  # of another version
            return site
        overruled = [f"{PREFIX}{name.upper()}" for name in theirs if mine[name] != theirs[name]]
        return cls(settings, site.faults, [name for name in overruled if name != f"{PREFIX}PORT"])

    @classmethod
    def _of_environment(cls) -> Site:
        """The installation that the environment alone describes; invalid variables are ignored."""
        try:
            return cls(Settings())
        except ValidationError as invalid:
            faults = {f"{PREFIX}{str(error['loc'][0]).upper()}": error["msg"] for error in invalid.errors()}
        before = os.environ.copy()
        try:
            for name in [name for name in before if name.upper() in faults]:
                del os.environ[name]
            return cls(Settings(), [(name, text.removeprefix("Value error, ")) for name, text in faults.items()])
        finally:
            os.environ.update(before)

    @property
    def home(self) -> Path:
        """The home, absolute and without links."""
        return self.settings.home.expanduser().absolute().resolve()

    @property
    def is_embedded(self) -> bool:
        """Whether `kotrain up` runs the database and the broker."""
        return self.settings.database_url is None and self.settings.broker_url is None

    @property
    def owner(self) -> int | None:
        """Process id of the stack running from this home; None if none is running."""
        return owner(self.home)

    @property
    def url(self) -> str | None:
        """The address that `kotrain up` stored in the home; None if there is none."""
        stack = running(self.home)
        return stack.url if stack else None

    @property
    def is_starting(self) -> bool:
        """Whether the home is locked by a stack whose API is not ready yet."""
        return self.is_embedded and self.owner is not None and self.url is None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A read-only connection with short timeouts. Raises NotChecked if the database cannot be reached."""
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
            raise NotChecked(in_words(problem)) from problem
        with connection:
            try:
                yield connection
            except ProgrammingError as problem:
                if getattr(problem.orig, "sqlstate", "") not in {"42P01", "42703"}:  # undefined table, column
                    raise
                raise NotChecked(f"the tables are of another version ({in_words(problem)})") from problem

    def _database_url(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database_url
        if not self.is_embedded:
            raise NotChecked("KOTRAIN_DATABASE_URL is not set")
        if self.owner is None:
            raise NotChecked(f"no stack is running from {self.home}")
        try:
            return database_url_of(self.home)
        except FileNotFoundError as problem:
            raise NotChecked("the running stack uses another database: set KOTRAIN_DATABASE_URL as it has") from problem
        except OSError as problem:
            raise NotChecked(f"cannot read the password of the database ({problem.strerror})") from problem
