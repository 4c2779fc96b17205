"""The home folder of an installation: created if missing, locked while its stack runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from service.operations.embedded.account import account_of, hand_over
from service.operations.embedded.process import Account, EmbeddedError

# sun_path holds 108 bytes with its final zero (unix(7)); PostgreSQL adds "/.s.PGSQL.5432.lock" to the folder.
SOCKET_FOLDER_BYTES = 107 - len("/.s.PGSQL.5432.lock")
_LEFTOVER_SECONDS = 30.0
_UNFIT = re.compile(r"[\"\\$`\x00-\x1f\x7f]")
"""initdb passes paths to a shell, in quotation marks."""
_PLAIN = re.compile(r"[\w./@+=~: -]+")
"""Paths that addresses and PostgreSQL's list of folders can hold as they are."""


class Home:
    """`with Home(path) as home`: the folder exists, is writable and locked by this process.

    The lock is an flock whose descriptor the servers inherit: it is released only when all of them have ended, too.
    Raises `EmbeddedError`.
    """

    account: Account | None
    """The user of the processes of this home; None: the current user."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = -1

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock, to be inherited by the servers."""
        return self._lock

    def __enter__(self) -> Home:
        if unfit := _UNFIT.search(str(self.path)):
            raise EmbeddedError(
                f"the home {self.path} has the character {unfit[0]!r}, which PostgreSQL's programs cannot handle: set "
                "KOTRAIN_HOME to another folder"
            )
        try:
            # As root, the processes run as another user, which must be able to enter (not list) the folder.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            self.path = self.path.resolve()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"cannot write to {self.path} ({error.strerror}): set KOTRAIN_HOME to a writable folder"
            ) from error
        try:
            self._take()
            self.account = account_of(self.path)
            if self.account:
                self._require_reachable(self.account)
                hand_over(self.path, self.account)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def _take(self) -> None:
        """Lock the folder, waiting for servers that are still stopping after their parent was killed."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(self._lock, 32, 0).decode().strip()
                if owner and Path("/proc", owner).exists():
                    raise EmbeddedError(
                        f"kotrain is already running from {self.path} (process {owner}): use it, stop it, "
                        "or set KOTRAIN_HOME to another folder"
                    ) from None
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"servers of an earlier kotrain are still running from {self.path}: "
                        f"list them with `fuser {self.path / 'lock'}`"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _require_reachable(self, account: Account) -> None:
        """Raise unless the user of the processes can access the home, whose own permissions are not changed."""
        if closed := account.blocked_at(self.path):
            raise EmbeddedError(
                f"as root, kotrain runs as the account {account.name}, which has no access to {closed}: set "
                "KOTRAIN_HOME to a folder that other users may enter (the default is /var/lib/kotrain), or run kotrain "
                "as an ordinary user"
            )

    def make_socket_folder(self) -> Path:
        """Create the empty `socket_folder` of this home, accessible to the user of the servers only."""
        folder = socket_folder(self.path)
        if len(os.fsencode(folder)) > SOCKET_FOLDER_BYTES or not _PLAIN.fullmatch(str(folder)):
            raise EmbeddedError(
                f"{folder} is too long for a unix socket, or has characters with a meaning in addresses: set "
                "KOTRAIN_HOME or TMPDIR to a shorter path with letters, digits and ._-"
            )
        remove_sockets(folder)
        try:
            folder.mkdir(mode=0o700)
            if self.account:
                os.chown(folder, self.account.uid, self.account.gid)
        except OSError as error:
            raise EmbeddedError(f"cannot create {folder} ({error.strerror}): remove it or set KOTRAIN_HOME") from error
        return folder


def socket_folder(home: Path) -> Path:
    """The folder of the sockets of `home` (absolute, without links), whose path fits into sockets and addresses.

    It is `run` in the home or, if that is too long or has characters with a meaning in addresses such as # or %, a
    folder in the temporary directory whose name is derived from the home, so that the next start finds and removes the
    sockets of a killed one.
    """
    folder = home / "run"
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES and _PLAIN.fullmatch(str(folder)):
        return folder
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"kotrain-{os.geteuid()}-{digest}")


def remove_sockets(folder: Path) -> None:
    """Remove a socket folder, ignoring errors; links are not followed."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
