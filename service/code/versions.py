"""Stored versions of uploaded code: add, look up, list and remove them."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, delete, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, defer

from service.code import plugins
from service.code.reader import declare
from service.code.source import is_available
from service.config import settings
from service.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from service.specs.catalog import uploaded
from service.specs.catalog.declaration import Declaration
from service.specs.states import ComparisonStatus
from service.specs.text import counted
from service.storage.database import transaction
from service.storage.tables import CodeVersion, Comparison, Job, User

RESERVED_NAMES = frozenset({"kotrain", "service", "workers", "migrations"})
"""Modules of kotrain, which uploaded code must not replace."""
MAX_VERSIONS = 1000
"""Maximum number of a user's versions."""


def add(user: User, name: str, file: str, content: bytes) -> tuple[UUID, bool]:
    """Store a file as the newest version of `name`; return its id, and whether it is new.

    The same file again is the same version.

    Raises:
        Invalid: the file does not define an optimizer that kotrain can use, or the name is not possible.
        Conflict: the user has too many versions.
    """
    _check_names(user.name, name)
    sha256 = hashlib.sha256(content).hexdigest()
    version = f"{user.name}/{name}@{sha256[:8]}"
    declared = declare(file, content, version)
    with transaction() as session:
        session.execute(select(User.id).where(User.id == user.id).with_for_update())  # one upload at a time
        stored = session.scalar(select(CodeVersion).where(CodeVersion.version == version))
        if stored is not None:
            if stored.sha256 != sha256:
                raise Conflict(f"another file has the version {version}; change a comment of yours")
            return stored.id, False
        count = session.scalar(select(func.count(CodeVersion.id)).where(CodeVersion.user_id == user.id)) or 0
        if count >= MAX_VERSIONS:
            raise Conflict(f"you have {counted(count, 'version')} of code, the maximum; delete unused ones")
        row = CodeVersion(
            user_id=user.id,
            name=name,
            kind="optimizer",
            version=version,
            sha256=sha256,
            file=file,
            source=content.decode("utf-8-sig"),
            declaration=declared.model_dump(mode="json", exclude_defaults=True),
        )
        session.add(row)
        session.flush()
        return row.id, True


def _check_names(owner: str, name: str) -> None:
    why = plugins.why_reserved(owner)
    if why is None and not uploaded.is_uploaded(f"{owner}/{name}"):
        why = "it must be 1 to 24 letters, digits and ._-, starting with a letter or digit"
    if why is not None:
        raise Invalid.field(
            "name",
            f"code is named USER/NAME, but the user name '{owner}' cannot be used: {why}; ask for a key with another "
            "user name",
        )
    if is_available(name) or name in RESERVED_NAMES:
        raise Invalid.field("name", f"'{name}' is the name of a module that code may import; choose another one")


def get(session: Session, name: str) -> CodeVersion:
    """The version of this name; the newest one for a name without a version. Raises NotFound."""
    row: CodeVersion | None = session.scalar(_named([name]).limit(1))
    if row is None:
        raise NotFound(f"no uploaded code has the name '{name[:64]}'")
    return row


def _named(names: Iterable[str]) -> Any:
    """Query of the versions with these names, newest first; all versions for a name without one."""
    conditions: list[Any] = []
    for name in names:
        owner, _, rest = name.partition("/")
        conditions.append(
            CodeVersion.version == name
            if "@" in rest
            else (CodeVersion.name == rest) & CodeVersion.user_id.in_(select(User.id).where(User.name == owner))
        )
    return select(CodeVersion).where(or_(*conditions)).order_by(CodeVersion.id.desc())


def find(name: str) -> Declaration | None:
    """The declaration of a version, or of the newest one, or of a plug-in; None if there is none, or no database."""
    if (plugin := plugins.find(name)) is not None:
        return plugin
    return resolve({name}).get(name) if settings().database_url else None


def resolve(names: Iterable[str]) -> Mapping[str, Declaration]:
    """Names of uploaded code and plug-ins -> declarations of the versions that they mean, without unknown names."""
    found = {name: plugin for name in names if (plugin := plugins.find(name)) is not None}
    for plugin in found.values():
        uploaded.remember(plugin)
    missing = {name for name in names if name not in found}
    if not missing:
        return found
    with transaction() as session:
        rows = session.scalars(_newest_named(missing)).all()
    for row in rows:
        declared = Declaration.model_validate(row.declaration)
        uploaded.remember(declared)
        for name in missing & {row.version, f"{row.user.name}/{row.name}"}:
            found.setdefault(name, declared)  # the newest row comes first
    return found


def _newest_named(names: Iterable[str]) -> Any:
    """Query of the versions with these names, newest first; the newest version for a name without one."""
    parts = [tuple(name.split("/", 1)) for name in names if "@" not in name]
    newest = (
        select(CodeVersion.id)
        .join(User)
        .where(tuple_(User.name, CodeVersion.name).in_(parts))
        .ext(distinct_on(CodeVersion.user_id, CodeVersion.name))
        .order_by(CodeVersion.user_id, CodeVersion.name, CodeVersion.id.desc())
    )
    is_wanted = CodeVersion.version.in_(names) | CodeVersion.id.in_(newest)
    return select(CodeVersion).options(defer(CodeVersion.source)).where(is_wanted).order_by(CodeVersion.id.desc())


def stored_names_in(optimizer: Mapping[str, Any]) -> list[str]:
    """The uploaded versions that the optimizer `{name, params}` of a resolved spec uses, not installed plug-ins."""
    return [name for name in uploaded.names_in(optimizer) if plugins.find(name) is None]


def names_in_trials(name: str, trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """The uploaded versions that the trials of an optimizer use: its base may be one of the tuned parameters."""
    return list(dict.fromkeys(used for params in trials for used in stored_names_in({"name": name, "params": params})))


def used_by(session: Session, optimizer: Mapping[str, Any]) -> Sequence[CodeVersion]:
    """The stored versions that an optimizer uses; fewer than `stored_names_in` if one was deleted."""
    return named(session, stored_names_in(optimizer))


def named(session: Session, names: Sequence[str]) -> list[CodeVersion]:
    """The stored versions with these full names, in their order."""
    rows = session.scalars(select(CodeVersion).where(CodeVersion.version.in_(names))) if names else ()
    return sorted(rows, key=lambda row: names.index(row.version))


def content(row: CodeVersion) -> bytes:
    """The file as it was uploaded; the stored source has no byte order mark."""
    text = row.source.encode()
    return text if hashlib.sha256(text).hexdigest() == row.sha256 else codecs.BOM_UTF8 + text


def hold(session: Session, names: Iterable[str], pointer: str) -> None:
    """Keep the versions that an optimizer uses from being deleted until the transaction ends.

    Their declarations stay in the memory of each API process, so a request that names a deleted version gets here.
    Raises Invalid, with the pointer of the optimizer, if one has been deleted.
    """
    for name in names:
        held = select(CodeVersion.id).where(CodeVersion.version == name).with_for_update(read=True, key_share=True)
        if session.scalar(held) is None:
            detail = f"uploaded code '{name}' has been deleted"
            raise Invalid(detail, (FieldError(pointer, detail),))


def view_all(
    session: Session, limit: int, after: UUID | None, owner: str | None, name: str | None
) -> tuple[Sequence[CodeVersion], bool]:
    """A page of versions, newest first, and whether there are more."""
    query = select(CodeVersion).options(defer(CodeVersion.source)).order_by(CodeVersion.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(CodeVersion.id < after)
    if owner is not None:
        query = query.where(CodeVersion.user_id.in_(select(User.id).where(User.name == owner)))
    if name is not None:
        query = query.where(CodeVersion.name == name)
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def newest(session: Session) -> Sequence[CodeVersion]:
    """The newest version of each name, at most `MAX_VERSIONS`, in the order of the names."""
    query = (
        select(CodeVersion).options(defer(CodeVersion.source)).ext(distinct_on(CodeVersion.user_id, CodeVersion.name))
    )
    query = query.order_by(CodeVersion.user_id, CodeVersion.name, CodeVersion.id.desc()).limit(MAX_VERSIONS)
    return sorted(session.scalars(query), key=lambda row: row.version)


def remove(session: Session, user: User, name: str) -> None:
    """Delete a version that nothing uses.

    Raises:
        NotFound: there is none of this name.
        Forbidden: it belongs to another user.
        Conflict: a job or a running comparison uses it.
    """
    row = session.scalar(select(CodeVersion).where(CodeVersion.version == name).with_for_update(of=CodeVersion))
    if row is None:
        hint = "" if "@" in name else "; name the version to delete, as in ada/mine@3f2a9c71"
        raise NotFound(f"no version of uploaded code has the name '{name[:64]}'{hint}")
    if row.user_id != user.id and not user.is_admin:
        raise Forbidden(f"code '{name}' belongs to {row.user.name}")
    of_base = Job.spec["optimizer"]["params"]["base"].astext == name
    jobs = session.scalar(select(func.count(Job.id)).where(or_(Job.optimizer == name, of_base)))
    if jobs:
        raise Conflict(f"code '{name}' is used by {counted(jobs, 'job')}, whose results refer to it")
    plans = select(Comparison.id).where(
        Comparison.status == ComparisonStatus.RUNNING, func.strpos(Comparison.plan.cast(Text), f'"{name}"') > 0
    )
    if (comparison_id := session.scalar(plans.limit(1))) is not None:
        raise Conflict(f"code '{name}' is used by the running comparison {comparison_id}")
    session.execute(delete(CodeVersion).where(CodeVersion.id == row.id))


uploaded.provide(find)  # wherever stored jobs and comparisons are read, the names in them can be looked up
