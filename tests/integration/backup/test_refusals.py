"""Damaged and incompatible backups are refused with a reason, and nothing changes."""

import io
import resource
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from service.accounts import api_keys
from service.config import settings
from service.operations.backup import archive, backup, pg_dump
from service.operations.backup.archive import BackupError, Reader
from service.storage import database, schema_version
from service.storage.schema_version import Incompatible
from tests.integration.backup.installations import (
    CODE,
    fill,
    is_empty,
    restore,
    rows,
    run,
)


def flipped(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def layout(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def rewritten(path: Path, change: Callable[[tarfile.TarInfo], None]) -> None:
    """Rewrite a tar with members that `change` has modified."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            change(member)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The bytes of one backup for all tests of the module; the first test creates it."""
    return {}


class TestDamage:
    """All damage is detected before anything is written."""

    @pytest.fixture
    def copy(self, target, contents, tmp_path) -> Iterator[Path]:
        backup_file = tmp_path / "a.tar"
        if contents:
            backup_file.write_bytes(contents["backup"])
        else:
            fill()
            backup.create(backup_file)
            contents["backup"] = backup_file.read_bytes()
        target.activate()
        yield backup_file
        assert is_empty(target)

    @pytest.mark.parametrize("where", ["content", "header"])
    @pytest.mark.parametrize("part", ["files", "database.dump", "manifest.json", "manifest.sha256"])
    def test_flipped_bit_is_detected(self, copy, part, where):
        member = next(member for name, member in layout(copy).items() if name.startswith(part))
        flipped(copy, member.offset_data + member.size // 2 if where == "content" else member.offset + 3)
        with pytest.raises(BackupError, match=r"damaged.*: use (another backup|a file created by)"):
            restore(copy)

    def test_truncated_file_is_detected(self, copy):
        whole = copy.read_bytes()
        ends = [member.offset_data + (member.size + 511) // 512 * 512 for member in layout(copy).values()]
        for length in (len(whole) // 3, *ends[:-1], ends[-1] - 500):
            copy.write_bytes(whole[:length])
            with pytest.raises(BackupError, match=r"is damaged \(.*\): use another backup$"):
                restore(copy)

    @pytest.mark.parametrize("content", [b"", b"something else", bytes(20_480)])
    def test_file_that_is_no_backup_is_refused(self, copy, content):
        copy.write_bytes(content)
        with pytest.raises(
            BackupError,
            match=r"is not a kotrain backup, or is damaged: use a file created by `kotrain backup`|manifest.* missing",
        ):
            restore(copy)

    def test_missing_file_is_refused(self, copy, tmp_path):
        for name in ("nothing", "."):
            with pytest.raises(BackupError, match=r"cannot read .*: give the path of a backup"):
                restore(tmp_path / name)

    def test_other_tar_is_refused(self, copy, tmp_path):
        with tarfile.open(copy, "w") as tar:
            tar.add(__file__, "notes.txt")
        with pytest.raises(BackupError, match="manifest, the last part, is missing"):
            restore(copy)

    @pytest.mark.parametrize("name", ["/etc/x", "../x", "files/../../x", "files//x", "./files/x", "files/./x"])
    def test_entry_outside_the_folder_is_refused(self, copy, name):
        def rename(member: tarfile.TarInfo) -> None:
            member.name = name if member.name.startswith("files/") else member.name

        rewritten(copy, rename)
        with pytest.raises(BackupError, match="is not a kotrain backup: unexpected entry"):
            restore(copy)

    def test_link_is_refused(self, copy):
        def link(member: tarfile.TarInfo) -> None:
            if member.name.startswith("files/"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

        rewritten(copy, link)
        with pytest.raises(BackupError, match="is not a kotrain backup: unexpected entry"):
            restore(copy)

    def test_extra_entry_is_refused(self, copy):
        with tarfile.open(copy, "a") as tar:
            tar.add(__file__, "files/notes.txt")
        with pytest.raises(BackupError, match="its parts differ from its manifest"):
            restore(copy)


def with_manifest(path: Path, **changed: object) -> None:
    """Rewrite a backup with fields of its manifest changed."""
    with Reader(path) as reader, path.with_suffix(".changed").open("wb") as file:
        writer = archive.Writer(file)
        for part in reader.manifest.parts:
            with reader.open(part.name) as source:
                writer.add(part.name, source)
        writer.close(reader.manifest.model_copy(update=changed))
    path.with_suffix(".changed").replace(path)


class TestRefusals:
    def test_newer_schema_is_refused(self, target, backup_file):
        with_manifest(backup_file, schema_number=CODE + 2, oldest_code=CODE + 1)
        target.activate()
        with pytest.raises(Incompatible, match=f"supports schema {CODE}, the backup requires {CODE + 1} or newer"):
            restore(backup_file)
        assert is_empty(target)

    def test_newer_schema_that_supports_this_code_is_restored(self, target, backup_file, tmp_path):
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        backup.create(tmp_path / "newer.tar")
        target.activate()
        assert restore(tmp_path / "newer.tar").jobs == 4
        with database.engine().connect() as connection:
            assert schema_version.read(connection).number == CODE + 2

    def test_other_format_is_refused(self, backup_file):
        with_manifest(backup_file, format=2)
        with pytest.raises(BackupError, match="by an incompatible version of kotrain: restore it with that version"):
            restore(backup_file)

    def test_older_server_is_refused(self, target, backup_file):
        with_manifest(backup_file, postgres=99)
        target.activate()
        with pytest.raises(
            BackupError, match="is of PostgreSQL 99, this server is 18: use a server of version 99 or newer"
        ):
            restore(backup_file)

    def test_target_with_jobs_is_refused(self, backup_file):
        with pytest.raises(BackupError, match="already has 1 user and 4 jobs: restore into an empty one"):
            restore(backup_file)
        assert len(rows("jobs")) == 4

    def test_target_with_a_user_is_refused(self, target, backup_file):
        target.activate()
        database.migrate()
        api_keys.create("bob")
        with pytest.raises(BackupError, match="already has 1 user and 0 jobs"):
            restore(backup_file)

    def test_target_with_a_newer_schema_is_refused(self, target, backup_file):
        target.activate()
        database.migrate()
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        with pytest.raises(BackupError, match="has the newer schema"):
            restore(backup_file)

    def test_target_with_open_connections_is_refused(self, target, backup_file):
        target.activate()
        with (
            psycopg.connect(target.url.replace("+psycopg", ""), application_name="kotrain"),
            pytest.raises(BackupError, match=r"kotrain has 1 open connection .*: stop its API and workers first"),
        ):
            restore(backup_file)

    def test_failed_restore_leaves_nothing(self, target, backup_file, monkeypatch):
        """A foreign table of the same name blocks the restore: neither our tables nor our files remain."""
        target.activate()
        run("CREATE TABLE jobs (mine text)")
        run("INSERT INTO jobs VALUES ('precious')")
        with pytest.raises(BackupError, match=r'pg_restore failed: .*relation "jobs" already exists'):
            restore(backup_file)
        assert rows("jobs") == [{"mine": "precious"}]
        assert is_empty(target)

    def test_backup_of_an_empty_database_is_refused(self, installations, tmp_path):
        with pytest.raises(BackupError, match="nothing to back up"):
            backup.create(tmp_path / "a.tar")
        assert list(tmp_path.glob("*.tar*")) == []

    def test_existing_file_is_not_overwritten(self, backup_file, tmp_path):
        before = backup_file.read_bytes()
        with pytest.raises(BackupError, match="already exists: choose another file"):
            backup.create(backup_file)
        (tmp_path / "b.tar.new").touch()
        with pytest.raises(BackupError, match="another backup is running; if it was killed"):
            backup.create(tmp_path / "b.tar")
        with pytest.raises(BackupError, match="No such file or directory"):
            backup.create(tmp_path / "no" / "folder.tar")
        assert backup_file.read_bytes() == before
        assert (tmp_path / "b.tar.new").exists()

    def test_full_disk_leaves_no_partial_backup(self, filled, tmp_path):
        """The limit on file sizes of this process (RLIMIT_FSIZE) stands for the full disk."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
        try:
            with pytest.raises(BackupError, match=r"backup failed \(.*: File too large\): choose a file on another"):
                backup.create(tmp_path / "a.tar")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert list(tmp_path.glob("*.tar*")) == []

    def test_missing_pg_dump_is_named(self, filled, tmp_path):
        with pytest.raises(BackupError, match=r"pg_dump of PostgreSQL 99 or newer is required \(installed: .*18"):
            pg_dump.find("pg_dump", 99)


def test_command_lines_contain_no_password(filled, monkeypatch, tmp_path):
    secret = settings().database_url.split(":")[2].partition("@")[0]
    lines = []
    start = subprocess.Popen

    class Popen(start):
        def __init__(self, line, **options):
            lines.append(" ".join(map(str, line)))
            super().__init__(line, **options)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    backup.create(tmp_path / "a.tar")
    assert any("pg_dump" in line and "--dbname=" in line for line in lines)
    assert not any(secret in line for line in lines)


@pytest.mark.parametrize(
    ("name", "message"), [("", "is not a file name"), (".", "is not a file name"), (300 * "a", "too long")]
)
def test_invalid_file_names_are_refused(installations, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackupError, match=message):
        backup.create(Path(name))
    assert list(tmp_path.iterdir()) == []
