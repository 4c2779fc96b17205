"""The account of the stack's processes if root starts it: one of kotrain's own, which nothing else runs as."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
import sys
import sysconfig
from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path

import psutil

import service
from service.config import Settings, settings
from service.operations.embedded.launch import CAP_DAC_READ_SEARCH
from service.operations.embedded.process import Account, EmbeddedError

OWN_IDS = range(60_706, 61_184)
"""User and group ids that distributions and systemd leave unused (systemd: "Users, Groups, UIDs and GIDs")."""
OWN_FOLDERS = ("postgres", "files", "scratch", "data", "user")
"""Folders of a home in which the account writes. The last one is its `HOME`."""
SHARED = "nobody"
_CREATE = "such as one created with `useradd --system kotrain`"
_DEVICES = ("nvidia*", "kfd", "dri/renderD*")


def account_of(home: Path) -> Account | None:
    """The account for the processes of a home; None, the current user, unless that is root. Raises `EmbeddedError`.

    It is the user that KOTRAIN_USER names. Otherwise it has a number only: that of the home's database if nothing else
    uses it, or another unused one, so that each home has its own.
    """
    name = settings().user
    if os.geteuid() != 0:
        if name is not None and _entry(name).pw_uid != os.geteuid():
            raise EmbeddedError(
                f"only root can run kotrain as '{name}' (KOTRAIN_USER): start it as root or as '{name}'"
            )
        return None
    devices = _groups_of_devices()
    if name is not None:
        entry = _entry(name)
        if entry.pw_uid == 0 or name == SHARED:
            raise EmbeddedError(f"KOTRAIN_USER is '{name}': choose a user of kotrain's own, {_CREATE}")
        return Account(name, entry.pw_uid, entry.pw_gid, devices)
    in_use = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    for number in _candidates(home):
        if number not in in_use and not _has_name(number):
            return Account(str(number), number, number, devices)
    raise EmbeddedError(f"all ids from {OWN_IDS[0]} to {OWN_IDS[-1]} are in use: set KOTRAIN_USER, {_CREATE}")


def _entry(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        remedy = f"create it with `useradd --system {name}`, or run kotrain as an ordinary user"
        raise EmbeddedError(f"there is no user '{name}': {remedy}") from None


def _candidates(home: Path) -> Iterator[int]:
    owner = (home / "postgres").stat().st_uid if (home / "postgres").exists() else -1
    if owner in OWN_IDS:
        yield owner
    first = int.from_bytes(hashlib.sha256(os.fsencode(home)).digest()[:4]) % len(OWN_IDS)
    yield from (*OWN_IDS[first:], *OWN_IDS[:first])


def _has_name(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return True
    return False


def _groups_of_devices() -> tuple[int, ...]:
    """The groups that may use the GPUs. Where all users may, none is needed."""
    devices = [path.stat() for pattern in _DEVICES for path in Path("/dev").glob(pattern)]
    return tuple({device.st_gid for device in devices if device.st_gid != 0 and device.st_mode & 0o066 == 0o060})


def creator_of(account: Account) -> Account:
    """The account that creates a database: initdb needs a user with a name.

    If the account has none, a shared one lends its name for a second. The group stays, without which no process of the
    shared user can enter the folder or read the memory of initdb.
    """
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        return replace(account, uid=_entry(SHARED).pw_uid)
    return account


def hand_over(home: Path, account: Account) -> None:
    """Make the account the owner of what it uses in the home; others can read nothing of it.

    Changes the owner of files that belong to root, to `nobody` (the account of earlier versions), to another account
    of kotrain or to the previous owner of the database. Does not follow symbolic links, and skips files with
    further hard links, which may be outside the home. Raises `EmbeddedError`.
    """
    try:
        _hand_over(home, account)
    except OSError as error:
        raise EmbeddedError(
            f"as root, kotrain runs as the account {account.name}, to which the folders of {home} cannot be given "
            f"({error.strerror}): choose a home on a local disk, or run kotrain as an ordinary user"
        ) from error


def _hand_over(home: Path, account: Account) -> None:
    postgres = home / "postgres"
    earlier = {postgres.lstat().st_uid} if postgres.exists() else set()
    for name in OWN_FOLDERS:
        folder = home / name
        if name != "postgres":
            folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.exists() or folder.is_symlink():
            continue
        try:
            own(folder, account, earlier)
        except RecursionError:
            raise EmbeddedError(f"{folder} has too many levels of folders: delete the deepest with rm -rf") from None
        folder.chmod(0o700)


def own(folder: Path, account: Account, owners: Set[int] = frozenset()) -> None:
    """Make the account the owner of a folder and its contents, as `hand_over` does; `owners`: further earlier ones."""
    earlier = {0, _entry(SHARED).pw_uid, *OWN_IDS, *owners} - {account.uid}
    for _, _, files, descriptor in os.fwalk(folder):
        if os.fstat(descriptor).st_uid in earlier:
            os.fchown(descriptor, account.uid, account.gid)
        for name in files:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if status.st_uid in earlier and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.chown(name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)


def unreadable(account: Account) -> Path | None:
    """The folder or file that keeps the account from Python, its packages or the data of the settings; None: none."""
    own = {path for name, path in sysconfig.get_paths().items() if name.endswith(("stdlib", "lib"))}
    paths = {sys.executable, os.path.realpath(sys.executable), service.__file__, *filter(None, sys.path), *own}
    paths |= {str(path) for path in (settings().data_dir, os.environ.get("PGPASSFILE")) if path}
    closed = (path for path in map(Path, paths) if path.exists() and not account.may_read(path.absolute()))
    return next((account.blocked_at(path.absolute().parent) or path for path in closed), None)


def may_read_all() -> bool:
    """Whether this process could let another keep the right to read all files, which many containers withhold."""
    status = Path("/proc/self/status").read_text()
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:"))
    return bool(int(capabilities, 16) >> CAP_DAC_READ_SEARCH & 1)


def refuse_unwritable(account: Account, config: Settings) -> None:
    """Raise unless the account can write to the folder of the checkpoints, which may be a link in the home."""
    if config.files is not None and "://" in config.files:
        return
    folder = Path(config.files or config.home / "files").resolve()
    if folder.is_dir() and not account.may_write_in(folder):
        raise EmbeddedError(
            f"as root, kotrain runs as the account {account.name}, which cannot write to {folder} (KOTRAIN_FILES): run "
            f"`chown -R {account.uid}:{account.gid} {folder}`, or run kotrain as the owner of the folder"
        )
