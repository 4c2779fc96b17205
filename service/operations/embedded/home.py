"""The home folder of an installation: made if need be, locked while anything of it runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from service.operations.embedded.process import Account, EmbeddedError

# sun_path holds 108 bytes with its final zero (unix(7)); PostgreSQL adds "/.s.PGSQL.5432.lock" to the folder.
SOCKET_FOLDER_BYTES = 107 - len("/.s.PGSQL.5432.lock")
_LEFTOVER_SECONDS = 30.0


class Home:
    """`with Home(path) as home`: the folder exists, is ours to write, and nobody else's servers run on it.

    The lock is an flock whose descriptor the servers inherit: it is free again only when we and they are all gone.
    Raises `EmbeddedError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = -1

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock, to be inherited by the servers."""
        return self._lock

    def __enter__(self) -> Home:
        try:
            # Root's servers run as somebody else, who must be able to enter (not to list) the folder.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            self.path = self.path.resolve()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"cannot write to {self.path} ({error.strerror}): set KOTRAIN_HOME to a folder that is yours"
            ) from error
        try:
            self._take()
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
        """Lock, waiting for servers that are still stopping after their owner was killed."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(self._lock, 32, 0).decode().strip()
                if owner and Path("/proc", owner).exists():
                    raise EmbeddedError(
                        f"kotrain already runs on {self.path} (process {owner}): use that one, stop it, "
                        "or set KOTRAIN_HOME to another folder"
                    ) from None
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"servers of an earlier kotrain still run on {self.path}: "
                        f"`fuser {self.path / 'lock'}` names them"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def make_socket_folder(self, account: Account | None) -> Path:
        """Make the empty `socket_folder` of this home, open to the servers' user alone."""
        folder = socket_folder(self.path)
        if len(os.fsencode(folder)) > SOCKET_FOLDER_BYTES:
            raise EmbeddedError(f"{folder} is too long for a unix socket: set KOTRAIN_HOME or TMPDIR to a shorter path")
        remove_sockets(folder)
        try:
            folder.mkdir(mode=0o700)
            if account:
                os.chown(folder, account.uid, account.gid)
        except OSError as error:
            raise EmbeddedError(f"cannot make {folder} ({error.strerror}): remove it or set KOTRAIN_HOME") from error
        return folder


def socket_folder(home: Path) -> Path:
    """Where the sockets of `home` (absolute, without links) lie: a path short enough for them.

    It is `run` in the home, or, where that is too long, a folder of the temporary directory named after the home, so
    that the next start finds and empties what a killed one left.
    """
    folder = home / "run"
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES:
        return folder
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"kotrain-{os.geteuid()}-{digest}")


def remove_sockets(folder: Path) -> None:
    """Remove a socket folder if it is there and can be removed; a link is never followed."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
