"""Backups that are damaged or do not fit: nothing is touched, and the reason is said."""

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
    is_untouched,
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
    """The same tar with members that `change` has renamed."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            change(member)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Of one backup for many tests, made by the first of them."""
    return {}


class TestDamage:
    """Whatever is wrong with the file is seen before anything is written."""

    @pytest.fixture
    def target(self, places, contents, tmp_path) -> Iterator[Path]:
        made = tmp_path / "a.tar"
        if contents:
            made.write_bytes(contents["backup"])
        else:
            fill()
            backup.create(made)
            contents["backup"] = made.read_bytes()
        places[1].enter()
        yield made
        assert is_untouched(places[1])

    @pytest.mark.parametrize("where", ["content", "header"])
    @pytest.mark.parametrize("part", ["files", "database.dump", "manifest.json", "manifest.sha256"])
    def test_a_flipped_bit(self, target, part, where):
        (member,) = [found for name, found in layout(target).items() if name.startswith(part)][:1]
        flipped(target, member.offset_data + member.size // 2 if where == "content" else member.offset + 3)
        with pytest.raises(BackupError, match=r"damaged.*: use (another backup|a file created by)"):
            restore(target)

    def test_a_truncated_file(self, target):
        whole = target.read_bytes()
        ends = [member.offset_data + (member.size + 511) // 512 * 512 for member in layout(target).values()]
        for length in (len(whole) // 3, *ends[:-1], ends[-1] - 500):
            target.write_bytes(whole[:length])
            with pytest.raises(BackupError, match=r"is damaged \(.*\): use another backup$"):
                restore(target)

    @pytest.mark.parametrize("content", [b"", b"something else", bytes(20_480)])
    def test_no_backup(self, target, content):
        target.write_bytes(content)
        with pytest.raises(
            BackupError,
            match=r"is not a kotrain backup, or is damaged: use a file created by `kotrain backup`|manifest.* missing",
        ):
            restore(target)

    def test_no_file(self, target, tmp_path):
        for name in ("nothing", "."):
            with pytest.raises(BackupError, match=r"cannot read .*: give the path of a backup"):
                restore(tmp_path / name)

    def test_another_tar(self, target, tmp_path):
        with tarfile.open(target, "w") as tar:
            tar.add(__file__, "notes.txt")
        with pytest.raises(BackupError, match="manifest, the last part, is missing"):
            restore(target)

    @pytest.mark.parametrize("name", ["/etc/x", "../x", "files/../../x", "files//x", "./files/x", "files/./x"])
    def test_a_name_that_leads_out(self, target, name):
        def rename(member: tarfile.TarInfo) -> None:
            member.name = name if member.name.startswith("files/") else member.name

        rewritten(target, rename)
        with pytest.raises(BackupError, match="is not a kotrain backup: unexpected entry"):
            restore(target)

    def test_a_link(self, target):
        def link(member: tarfile.TarInfo) -> None:
            if member.name.startswith("files/"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

        rewritten(target, link)
        with pytest.raises(BackupError, match="is not a kotrain backup: unexpected entry"):
            restore(target)

    def test_a_part_too_many(self, target):
        with tarfile.open(target, "a") as tar:
            tar.add(__file__, "files/notes.txt")
        with pytest.raises(BackupError, match="its parts differ from its manifest"):
            restore(target)


def with_manifest(path: Path, **changed: object) -> None:
    """The same backup, saying something else of itself."""
    with Reader(path) as reader, path.with_suffix(".changed").open("wb") as file:
        writer = archive.Writer(file)
        for part in reader.manifest.parts:
            with reader.open(part.name) as source:
                writer.add(part.name, source)
        writer.close(reader.manifest.model_copy(update=changed))
    path.with_suffix(".changed").replace(path)


class TestRefusals:
    def test_a_newer_schema(self, places, made):
        with_manifest(made, schema_number=CODE + 2, oldest_code=CODE + 1)
        places[1].enter()
        with pytest.raises(Incompatible, match=f"supports schema {CODE}, the backup requires {CODE + 1} or newer"):
            restore(made)
        assert is_untouched(places[1])

    def test_a_newer_schema_that_this_code_can_use(self, places, made, tmp_path):
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        backup.create(tmp_path / "newer.tar")
        places[1].enter()
        assert restore(tmp_path / "newer.tar").jobs == 4
        with database.engine().connect() as connection:
            assert schema_version.read(connection).number == CODE + 2

    def test_another_format(self, places, made):
        with_manifest(made, format=2)
        with pytest.raises(BackupError, match="by an incompatible version of kotrain: restore it with that version"):
            restore(made)

    def test_an_older_server(self, places, made):
        with_manifest(made, postgres=99)
        places[1].enter()
        with pytest.raises(
            BackupError, match="is of PostgreSQL 99, this server is 18: use a server of version 99 or newer"
        ):
            restore(made)

    def test_a_target_that_is_in_use(self, places, made):
        with pytest.raises(BackupError, match="already has 1 users and 4 jobs: restore into an empty one"):
            restore(made)
        assert len(rows("jobs")) == 4

    def test_a_target_with_a_user_only(self, places, made):
        places[1].enter()
        database.migrate()
        api_keys.create("bob")
        with pytest.raises(BackupError, match="already has 1 users and 0 jobs"):
            restore(made)

    def test_a_target_with_a_newer_schema(self, places, made):
        places[1].enter()
        database.migrate()
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        with pytest.raises(BackupError, match="has the newer schema"):
            restore(made)

    def test_a_target_that_kotrain_is_connected_to(self, places, made):
        places[1].enter()
        with (
            psycopg.connect(places[1].url.replace("+psycopg", ""), application_name="kotrain"),
            pytest.raises(BackupError, match=r"kotrain has 1 open connections .*: stop its API and workers first"),
        ):
            restore(made)

    def test_what_cannot_be_loaded_leaves_nothing(self, places, made, monkeypatch):
        """A table of somebody else is in the way: neither our tables nor our files stay."""
        places[1].enter()
        run("CREATE TABLE jobs (mine text)")
        run("INSERT INTO jobs VALUES ('precious')")
        with pytest.raises(BackupError, match=r'pg_restore failed: .*relation "jobs" already exists'):
            restore(made)
        assert rows("jobs") == [{"mine": "precious"}]
        assert is_untouched(places[1])

    def test_an_empty_database_has_no_backup(self, places, tmp_path):
        with pytest.raises(BackupError, match="nothing to back up"):
            backup.create(tmp_path / "a.tar")
        assert list(tmp_path.glob("*.tar*")) == []

    def test_a_file_that_exists(self, made, tmp_path):
        before = made.read_bytes()
        with pytest.raises(BackupError, match="already exists: choose another file"):
            backup.create(made)
        (tmp_path / "b.tar.new").touch()
        with pytest.raises(BackupError, match="another backup is running; if it was killed"):
            backup.create(tmp_path / "b.tar")
        with pytest.raises(BackupError, match="No such file or directory"):
            backup.create(tmp_path / "no" / "folder.tar")
        assert made.read_bytes() == before
        assert (tmp_path / "b.tar.new").exists()

    def test_a_full_disk_leaves_nothing(self, filled, tmp_path):
        """A real one: the limit on the size of files that this process may write counts like it."""
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

    def test_without_the_programs(self, filled, tmp_path):
        with pytest.raises(BackupError, match=r"pg_dump of PostgreSQL 99 or newer is required \(installed: .*18"):
            pg_dump.find("pg_dump", 99)


def test_no_password_is_on_a_command_line(filled, monkeypatch, tmp_path):
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
    ("name", "says"), [("", "is not a file name"), (".", "is not a file name"), (300 * "a", "too long")]
)
def test_names_that_are_none(places, tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackupError, match=says):
        backup.create(Path(name))
    assert list(tmp_path.iterdir()) == []
