"""Checks of this machine: settings, folders, disk, memory, packages."""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
import resource
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from service.code import plugins
from service.code.support import support
from service.config import Settings
from service.datasets.layouts import fetch_command, is_present, own_names
from service.jobs.memory import JobMemory, default_slots, machine_bytes
from service.operations.doctor.findings import PREFIX, Finding, NotChecked, Site, error, ok, warning
from service.operations.embedded.account import account_of, unreadable
from service.operations.embedded.home import SOCKET_FOLDER_BYTES, socket_folder
from service.operations.embedded.process import EmbeddedError
from service.specs.catalog.datasets import DATASETS
from service.specs.extras import install_hint
from service.specs.quantities import size
from service.specs.text import counted
from service.storage.files import Store

OTHER_VARIABLES = frozenset({"URL", "KEY", "REVISION"})
"""`KOTRAIN_...` variables of the SDK, and of the revision recorded with each job."""
MIN_BEATS = 3
"""Per lease; with fewer, a single lost heartbeat may cost a worker its jobs."""

FULL_BYTES, LOW_BYTES = 2**30, 5 * 2**30
"""Free disk space: PostgreSQL stops without any, and a checkpoint of a large model takes a gigabyte."""
MIN_FILES = 1000
OPEN_FILES = 4096
TORCHVISION_AHEAD = 15
"""torchvision 0.(n + 15) matches torch 2.n; other versions fail at import."""


def settings(site: Site) -> Iterator[Finding]:
    """Unknown variables, invalid values, and a missing address of database or broker."""
    names = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    variables = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    for name in variables:
        rest = name.upper().removeprefix(PREFIX)
        if rest in names:
            continue
        longer = sorted(setting for setting in names if setting.startswith(f"{rest}_"))  # unit omitted
        if likely := longer or difflib.get_close_matches(rest, names, 1, 0.75):
            yield error(
                f"{name} is not a setting; did you mean {PREFIX}{likely[0]}?", f"rename it to {PREFIX}{likely[0]}"
            )
        else:
            yield warning(f"{name} is not a setting", "remove it; docs/operations.md lists the settings")
    for name, why in site.faults:
        yield error(f"{name}: {why}", "correct it; the other checks use its default")
    if (site.settings.database_url is None) != (site.settings.broker_url is None):
        name = "KOTRAIN_DATABASE_URL" if site.settings.database_url is None else "KOTRAIN_BROKER_URL"
        yield error(f"{name} is not set, but the other address is", "set KOTRAIN_DATABASE_URL and KOTRAIN_BROKER_URL")
    if site.settings.lease_seconds < MIN_BEATS * site.settings.beat_seconds:
        yield warning(
            f"a lease of {site.settings.lease_seconds:g} s is too short for a heartbeat every "
            f"{site.settings.beat_seconds:g} s: running workers lose their jobs",
            "raise KOTRAIN_LEASE_SECONDS",
        )
    if site.overruled:
        yield ok(f"as the running stack has them, not this shell: {', '.join(site.overruled)}")
    known = [name for name in variables if name.upper().removeprefix(PREFIX) in names]
    yield ok(f"set in the environment: {', '.join(known)}" if known else "all settings have their defaults")


def home(site: Site) -> Iterator[Finding]:
    """Ownership and permissions of the home, and the length of its socket paths."""
    folder = site.home
    try:
        folder.lstat()
    except OSError as problem:
        if problem.errno not in {errno.ENOENT, errno.ENOTDIR}:
            yield error(f"{folder}: {problem.strerror}", "set KOTRAIN_HOME to another folder")
            return
    if not folder.exists():
        yield warning(f"{folder} does not exist yet", "`kotrain up` creates it" if site.is_embedded else None)
        return
    if not folder.is_dir():
        yield error(f"{folder} is not a folder", "set KOTRAIN_HOME to a folder")
        return
    status = folder.stat()
    if not os.access(folder, os.W_OK | os.X_OK):
        yield error(f"{folder} is not writable", "change its owner or mode (chown, chmod u+rwx), or set KOTRAIN_HOME")
    elif status.st_uid != os.geteuid():
        yield error(f"{folder} belongs to user {status.st_uid}", "run kotrain as that user, or set KOTRAIN_HOME")
    if status.st_mode & 0o022:
        yield warning(f"{folder} is writable by other users", f"chmod go-w {folder}")
    key = folder / "key"
    if key.exists() and key.stat().st_mode & 0o077:
        yield error(f"{key}, an administrator's key, is readable by other users", f"chmod 600 {key}")
    if site.is_embedded:
        yield from _reachable(site)
    yield ok(str(folder))


def _reachable(site: Site) -> Iterator[Finding]:
    sockets = socket_folder(site.home)
    if len(os.fsencode(sockets)) > SOCKET_FOLDER_BYTES:
        yield error(f"{sockets} is too long for a unix socket", "set KOTRAIN_HOME or TMPDIR to a shorter path")
    try:
        account = account_of(site.home)
    except EmbeddedError as problem:
        yield error(str(problem), "run kotrain as an ordinary user")
        return
    if account and (closed := account.blocked_at(site.home)):
        yield error(
            f"as root, kotrain runs as an account of its own, which has no access to {closed}",
            "set KOTRAIN_HOME to a folder that other users may enter, or run kotrain as an ordinary user",
        )
    elif account and (closed := unreadable(account)):
        yield warning(
            f"as root, kotrain runs as an account of its own, which cannot read {closed} and gets the right to read "
            "all files",
            "install kotrain and its data where other users can read them, or run kotrain as an ordinary user",
        )


def disk(site: Site) -> Iterator[Finding]:
    """Free space and inodes on the disks of the home, the store and the data sets."""
    folders = {"home": site.home, "data": site.settings.data}
    if "://" not in (site.settings.files or ""):
        folders["files"] = Path(site.settings.files or site.home / "files")
    disks: dict[int, tuple[list[str], Path]] = {}
    for name, folder in folders.items():
        path = _existing(folder)
        disks.setdefault(path.stat().st_dev, ([], path))[0].append(name)
    for names, path in disks.values():
        usage, inodes = shutil.disk_usage(path), os.statvfs(path)
        text = f"{size(usage.free)} of {size(usage.total)} free for {' and '.join(names)} ({path})"
        remedy = "free space (`kotrain gc` deletes old checkpoints and metric points), or use a larger disk"
        if usage.free < FULL_BYTES:
            yield error(text, remedy)
        elif usage.free < LOW_BYTES:
            yield warning(text, remedy)
        else:
            yield ok(text)
        if inodes.f_files and inodes.f_favail < MIN_FILES:
            yield error(f"only {inodes.f_favail} free inodes on the disk of {path}", "delete files there")


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def files(site: Site) -> Iterator[Finding]:
    """Write a file to the store, read it back and remove it."""
    url = site.settings.files or str(site.home / "files")
    if site.settings.files is None and not site.home.exists():
        raise NotChecked(f"{url} does not exist yet")
    name, content = f"doctor/{uuid4()}", os.urandom(4096)
    try:
        store = Store(url, site.home / "scratch")
        try:
            store.place(name).write_bytes(content)
            store.put(name)
            store.forget(store.get(name, len(content), hashlib.sha256(content).hexdigest()))
        finally:
            store.remove([name])
    except Exception as problem:  # any error of an fsspec backend
        is_full = isinstance(problem, OSError) and problem.errno == errno.ENOSPC
        remedy = "free space there" if is_full else "grant this user write access"
        yield error(
            f"cannot store files in {url}: {problem}", f"checkpoints are stored there: {remedy}, or set KOTRAIN_FILES"
        )
    else:
        yield ok(f"wrote, read and deleted a file in {url}")


def data_sets(site: Site) -> Iterator[Finding]:
    """Which data sets are present."""
    folder = site.settings.data
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        yield error(f"{folder} is not readable", "grant this user read access, or set KOTRAIN_DATA_DIR")
        return
    present = [name for name in DATASETS if is_present(name, folder)]
    missing = [name for name in DATASETS if name not in present]
    own = len(own_names(folder))
    uploaded = f"{own} uploaded" if own else ""
    text = f"{', '.join(filter(None, [*present, uploaded]))} in {folder}"
    yield ok(f"{text}; missing: {', '.join(missing)} ({fetch_command('NAME')})" if missing else text)


def memory(site: Site) -> Iterator[Finding]:
    """Whether the jobs of a worker on this machine fit into its memory."""
    slots = site.settings.slots or default_slots(len(os.sched_getaffinity(0)))
    jobs = JobMemory(slots, site.settings.job_memory_bytes)
    if jobs.refusal:
        yield error(*jobs.refusal)
    elif jobs.warning:
        yield warning(jobs.warning, "lower one of the two settings")
    else:
        yield ok(f"{size(machine_bytes())}; {size(jobs.limit_bytes)} for a job, {counted(slots, 'slot')} without a GPU")


def uploaded_code(_: Site) -> Iterator[Finding]:
    """Whether code that users upload can run, and how."""
    supported = support()
    if supported["accepted"] or supported["runs"].endswith("off"):
        yield ok(supported["runs"])
    else:
        yield warning(
            supported["runs"], "allow unprivileged user namespaces and Landlock, or set KOTRAIN_UPLOADED_CODE"
        )


def installed_plugins(_: Site) -> Iterator[Finding]:
    """The plug-ins beside kotrain on this machine, and why some cannot be used."""
    found = plugins.plugins().values()
    for plugin in found:
        if plugin.declaration.refusal is not None:
            yield error(
                f"{plugin.name} of {plugin.fact('Name')} {plugin.fact('Version')} cannot be used: "
                f"{plugin.declaration.refusal}",
                "correct or uninstall the package, and restart the API and the workers",
            )
    usable = [plugin.declaration.name for plugin in found if plugin.declaration.refusal is None]
    if usable or not found:
        yield ok(f"installed: {', '.join(usable)}" if usable else "no plug-ins are installed")


def open_files(_: Site) -> Iterator[Finding]:
    """The limit of open files, which the API raises to the hard one at its start."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        yield warning(
            f"the hard limit of open files is {hard}", f"set `ulimit -Hn {OPEN_FILES}` or more before the start"
        )
    else:
        yield ok(f"at most {'unlimited' if hard == resource.RLIM_INFINITY else format(hard, ',')} may be open")


# --- packages --------------------------------------------------------------------------------------------------------

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*\(?(?P<sign>>=|==)?(?P<version>[0-9.]*[0-9])?.*")


def packages(site: Site) -> Iterator[Finding]:
    """Installed versions against the requirements; torch if this machine is to train."""
    can_train = _version("torch") is not None
    extras = ["server", *(["embedded"] if site.is_embedded else []), *(["worker"] if can_train else [])]
    problems = list(_unmet(extras))
    if can_train:
        problems += _unpaired(_version("torch") or "", _version("torchvision") or "")
    elif site.is_embedded:
        problems.append(error("torch is not installed: no worker can run", install_hint("all")))
    yield from problems
    trains = f", torch {_version('torch')}, torchvision {_version('torchvision')}" if can_train else ", without torch"
    yield ok(f"kotrain {_version('kotrain')}{trains}")


def _unmet(extras: list[str]) -> Iterator[Finding]:
    remedy = install_hint(*extras)
    for requirement in _requirements(extras):
        name, sign, version = requirement["name"], requirement["sign"], requirement["version"]
        installed = _version(name)
        if installed is None:
            yield error(f"{name} is not installed", remedy)
        elif version and not _meets(installed, sign, version):
            yield error(f"{name} {installed} is installed, kotrain needs {sign}{version}", remedy)


def _requirements(extras: list[str]) -> list[re.Match[str]]:
    """The requirements of these extras, without duplicates."""
    requirements = {}
    for line in metadata.requires("kotrain") or []:
        requirement, _, marker = line.partition(";")
        match = _REQUIREMENT.match(requirement)
        if match and match["name"] != "kotrain" and any(f"'{extra}'" in marker for extra in extras):
            requirements[requirement] = match
    return list(requirements.values())


def _unpaired(torch: str, torchvision: str) -> Iterator[Finding]:
    (major, minor), vision = _numbers(torch)[:2], _numbers(torchvision)[:2]
    if major == 2 and vision and vision != (0, minor + TORCHVISION_AHEAD):
        yield error(f"torchvision {torchvision} does not match torch {torch}", f"install 0.{minor + TORCHVISION_AHEAD}")
    elif torchvision and ("+cpu" in torch) != ("+cpu" in torchvision):
        yield error(
            f"torch {torch} and torchvision {torchvision} are different builds: training on images fails",
            "install both from the same index",
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", re.split(r"[+a-z]", version)[0]))


def _meets(installed: str, sign: str, required: str) -> bool:
    numbers, bound = _numbers(installed), _numbers(required)
    return numbers >= bound if sign == ">=" else installed == required or numbers == bound
