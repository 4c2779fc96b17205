"""Backup and restore between real databases: everything comes back, or nothing is touched and the reason is said."""

import io
import json
import os
import resource
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import text
from starlette.testclient import TestClient

from service import archives, attempts, backup, compatibility, db, dumps, keys, metrics, queue
from service.app import create_app
from service.archives import BackupError, Reader
from service.attempts import Batch, Beat, Claim
from service.checkpoints import Written, name_of, newest_first
from service.compatibility import Incompatible
from service.config import settings
from service.embedded import Embedded
from service.spec import Reason
from service.store import digest, store

COMPARISON = {
    "name": "which",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}}],
    "optimizers": [{"name": "adam"}, {"name": "sgd", "params": {"lr": 0.1}}],
    "seeds": 2,
}
TABLES = ("users", "api_keys", "jobs", "job_events", "metric_names", "metric_chunks", "checkpoints", "comparisons")
CODE = compatibility.code_number()


class Place:
    """A database and a home of its own; `enter` makes them those of this process."""

    def __init__(self, url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.url, self.home, self._patch = url, home, patch

    def enter(self) -> None:
        if db.engine.cache_info().currsize:
            db.engine().dispose()
        self._patch.setenv("KOTRAIN_DATABASE_URL", self.url)
        self._patch.setenv("KOTRAIN_HOME", str(self.home))
        for made in (settings, db.engine, queue.celery, store):
            made.cache_clear()
        self._patch.setattr(metrics, "_name_ids", {})

    def files(self) -> dict[str, int]:
        return dict(store().names())


@pytest.fixture
def places(servers: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Place, Place]]:
    """Where a backup is made and where it goes; both empty. The first is entered."""
    monkeypatch.setenv("KOTRAIN_BROKER_URL", servers.broker_url)
    names = ("backup_source", "backup_target")
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}")
        here, there = (
            Place(servers.database_url.replace("/kotrain?", f"/{name}?"), tmp_path / name, monkeypatch)
            for name in names
        )
        here.enter()
        yield here, there
        db.engine().dispose()
        for made in (settings, db.engine, queue.celery, store):
            made.cache_clear()
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def do(call: Callable, *arguments, **options):
    with db.transaction() as session:
        return call(session, *arguments, **options)


def run(statement: str, **values: object) -> None:
    do(lambda session: session.execute(text(statement), values))


def restore(source: Path) -> backup.Restored:
    with backup.verified(source) as whole:
        return backup.restore(whole)


def rows(table: str) -> list:
    return do(lambda session: session.scalars(text(f"SELECT to_jsonb({table}) FROM {table} ORDER BY 1")).all())


def keep(claim: Claim, step: int) -> Batch:
    """What a child that has written a checkpoint makes known of it."""
    name = name_of(claim.job_id, claim.attempt, f"{step}.ckpt")
    path = store().place(name)
    path.write_bytes(os.urandom(5000))
    written = Written(step, name, path.stat().st_size, digest(path), seconds=1.5)
    store().put(name)
    return Batch({"train_loss": ([step - 1, step], [0.5, 0.25], [0.1, 0.2])}, [written], ["a note"])


def fill() -> Claim:
    """Store a comparison of four runs: one at work with two checkpoints, one done. The claim of the first."""
    db.migrate()
    with TestClient(create_app()) as client:
        client.headers["Authorization"] = f"Bearer {keys.create('ada')}"
        assert client.post("/v1/comparisons", json=COMPARISON).status_code == 202
    running, done = (do(attempts.claim, "w1", has_cuda=False) for _ in range(2))
    for step in (10, 20):
        do(attempts.beat, "w1", [Beat(running, step, 100, [keep(running, step)])])
    do(attempts.finish, done, Reason.ERROR, message="Wörter\nüber Zeilen", batches=[Batch({"lr": ([1], [0.1], [0.0])})])
    return running


@pytest.fixture
def filled(places: tuple[Place, Place]) -> Claim:
    """The first place is filled; the claim of its running job."""
    return fill()


@pytest.fixture
def made(filled: Claim, tmp_path: Path) -> Path:
    """A backup of that."""
    backup.create(tmp_path / "a.tar")
    return tmp_path / "a.tar"


def is_untouched(place: Place) -> bool:
    """Nothing is in a place that had nothing."""
    with db.engine().connect() as connection:
        return compatibility.read(connection) is None and place.files() == {}


class TestRoundTrip:
    def test_everything_comes_back(self, places, filled, made):
        here, there = places
        before = {table: rows(table) for table in TABLES}
        files = {name: store().path(name).read_bytes() for name in here.files()}
        assert len(files) == 2
        there.enter()
        restored = restore(made)
        assert restored == backup.Restored(jobs=4, files=2, given_back=1, dropped=0)
        for table in set(TABLES) - {"jobs", "job_events"}:
            assert rows(table) == before[table] != [], table
        untouched = {job["id"]: job for job in before["jobs"] if job["status"] != "running"}
        assert {job["id"]: job for job in rows("jobs") if job["id"] in untouched} == untouched
        assert {name: store().path(name).read_bytes() for name in there.files()} == files
        db.check_schema()

    def test_what_was_running_goes_on_from_its_checkpoint_without_blame(self, places, filled, made):
        places[1].enter()
        restore(made)
        again = do(attempts.claim, "w2", has_cuda=False)
        assert (again.job_id, again.attempt, again.step) == (filled.job_id, 2, 20)
        (found,) = [job for job in rows("jobs") if job["id"] == str(filled.job_id)]
        assert found["failures"] == 0
        newest, older = do(newest_first, filled.job_id)
        for written in (newest, older):
            store().get(written.file, written.size_bytes, written.sha256)
        assert do(attempts.beat, "w1", [Beat(filled, 30, 100, [])]) == {filled.job_id: attempts.Order.LOST}

    def test_into_migrated_tables_that_are_empty(self, places, made):
        places[1].enter()
        db.migrate()
        assert restore(made).jobs == 4

    def test_the_file_is_private_and_plain(self, made):
        assert made.stat().st_mode & 0o777 == 0o600
        with tarfile.open(made) as tar:
            names = tar.getnames()
            assert names[0].startswith("files/jobs/")
            assert names[-3:] == ["database.dump", "manifest.json", "manifest.sha256"]
            said = json.load(tar.extractfile("manifest.json"))
        assert (said["schema_number"], said["jobs"], said["left_out"]) == (CODE, 4, [])
        assert [path.name for path in made.parent.iterdir() if path.is_file()] == ["a.tar"]

    def test_any_pg_restore_reads_its_dump(self, made, tmp_path):
        with tarfile.open(made) as tar:
            (tmp_path / "dump").write_bytes(tar.extractfile("database.dump").read())
        program = dumps.find("pg_restore", 18).path
        listed = subprocess.run([program, "--list", tmp_path / "dump"], capture_output=True, text=True, check=True)
        assert "TABLE DATA public jobs" in listed.stdout

    def test_an_older_schema_is_brought_up(self, places, filled, tmp_path):
        run("DELETE FROM checkpoints")
        with db.engine().begin() as connection:
            config = compatibility.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "0002")
        assert backup.create(tmp_path / "old.tar").schema_number == 2
        places[1].enter()
        assert restore(tmp_path / "old.tar").jobs == 4
        db.check_schema()


class TestFilesThatGo:
    def replaced(self, claim: Claim) -> None:
        """Newer checkpoints take the place of both."""
        for step in (30, 40):
            do(attempts.beat, "w1", [Beat(claim, step, 100, [keep(claim, step)])])

    def test_what_is_replaced_while_it_is_copied_is_in_it(self, places, filled, tmp_path, monkeypatch):
        add = archives.Writer.add

        def replace_first(*arguments: object) -> bool:
            monkeypatch.setattr(archives.Writer, "add", add)
            self.replaced(filled)
            return add(*arguments)

        monkeypatch.setattr(archives.Writer, "add", replace_first)
        before = do(newest_first, filled.job_id)
        manifest = backup.create(tmp_path / "b.tar")
        assert (len(manifest.files), manifest.left_out) == (2, [])
        assert [written.step for written in do(newest_first, filled.job_id)] == [40, 30]
        places[1].enter()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == before

    def test_what_is_replaced_before_that_is_left_out_and_its_row_too(self, places, filled, tmp_path, monkeypatch):
        copy = backup._copy_files

        def replace_first(*arguments: object) -> list[str]:
            self.replaced(filled)
            return copy(*arguments)

        monkeypatch.setattr(backup, "_copy_files", replace_first)
        newest, older = do(newest_first, filled.job_id)
        manifest = backup.create(tmp_path / "b.tar")
        assert (manifest.files, manifest.left_out) == ([], [newest.file, older.file])
        places[1].enter()
        assert restore(tmp_path / "b.tar").dropped == 2
        assert rows("checkpoints") == []
        assert do(attempts.claim, "w2", has_cuda=False).job_id == filled.job_id

    def test_a_damaged_one_is_left_out(self, places, filled, tmp_path):
        newest, older = do(newest_first, filled.job_id)
        store().path(newest.file).write_bytes(bytes(newest.size_bytes))
        assert backup.create(tmp_path / "b.tar").left_out == [newest.file]
        places[1].enter()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == [older]


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
        with pytest.raises(BackupError, match=r"damaged.*: use (another backup|one that)"):
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
            BackupError, match=r"is no backup of kotrain, or damaged: use one that `kotrain backup` made|no manifest"
        ):
            restore(target)

    def test_no_file(self, target, tmp_path):
        for name in ("nothing", "."):
            with pytest.raises(BackupError, match=r"cannot read .*: name the file of a backup"):
                restore(tmp_path / name)

    def test_another_tar(self, target, tmp_path):
        with tarfile.open(target, "w") as tar:
            tar.add(__file__, "notes.txt")
        with pytest.raises(BackupError, match="no manifest"):
            restore(target)

    @pytest.mark.parametrize("name", ["/etc/x", "../x", "files/../../x", "files//x", "./files/x", "files/./x"])
    def test_a_name_that_leads_out(self, target, name):
        def rename(member: tarfile.TarInfo) -> None:
            member.name = name if member.name.startswith("files/") else member.name

        rewritten(target, rename)
        with pytest.raises(BackupError, match="kotrain makes no backup with a part like"):
            restore(target)

    def test_a_link(self, target):
        def link(member: tarfile.TarInfo) -> None:
            if member.name.startswith("files/"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0

        rewritten(target, link)
        with pytest.raises(BackupError, match="kotrain makes no backup with a part like"):
            restore(target)

    def test_a_part_too_many(self, target):
        with tarfile.open(target, "a") as tar:
            tar.add(__file__, "files/notes.txt")
        with pytest.raises(BackupError, match="not those that its manifest names"):
            restore(target)


def with_manifest(path: Path, **changed: object) -> None:
    """The same backup, saying something else of itself."""
    with Reader(path) as reader, path.with_suffix(".changed").open("wb") as file:
        writer = archives.Writer(file)
        for part in reader.manifest.parts:
            with reader.open(part.name) as source:
                writer.add(part.name, source)
        writer.close(reader.manifest.model_copy(update=changed))
    path.with_suffix(".changed").replace(path)


class TestRefusals:
    def test_a_newer_schema(self, places, made):
        with_manifest(made, schema_number=CODE + 2, oldest_code=CODE + 1)
        places[1].enter()
        with pytest.raises(Incompatible, match=f"knows schema {CODE}, the backup needs {CODE + 1} or newer"):
            restore(made)
        assert is_untouched(places[1])

    def test_a_newer_schema_that_this_code_can_use(self, places, made, tmp_path):
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        backup.create(tmp_path / "newer.tar")
        places[1].enter()
        assert restore(tmp_path / "newer.tar").jobs == 4
        with db.engine().connect() as connection:
            assert compatibility.read(connection).number == CODE + 2

    def test_another_format(self, places, made):
        with_manifest(made, format=2)
        with pytest.raises(BackupError, match="of another version of kotrain: restore it with that one"):
            restore(made)

    def test_an_older_server(self, places, made):
        with_manifest(made, postgres=99)
        places[1].enter()
        with pytest.raises(BackupError, match="is of PostgreSQL 99 and this server is 18: use one of 99 or newer"):
            restore(made)

    def test_a_target_that_is_in_use(self, places, made):
        with pytest.raises(BackupError, match="holds 1 users and 4 jobs already: restore into an empty one"):
            restore(made)
        assert len(rows("jobs")) == 4

    def test_a_target_with_a_user_only(self, places, made):
        places[1].enter()
        db.migrate()
        keys.create("bob")
        with pytest.raises(BackupError, match="holds 1 users and 0 jobs"):
            restore(made)

    def test_a_target_with_a_newer_schema(self, places, made):
        places[1].enter()
        db.migrate()
        run("UPDATE alembic_version SET version_num = :number", number=f"{CODE + 2:04}")
        with pytest.raises(BackupError, match="has the newer schema"):
            restore(made)

    def test_a_target_that_kotrain_is_connected_to(self, places, made):
        places[1].enter()
        with (
            psycopg.connect(places[1].url.replace("+psycopg", ""), application_name="kotrain"),
            pytest.raises(BackupError, match=r"1 connections of kotrain .*: stop its API and workers first"),
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
        with pytest.raises(BackupError, match="exists already: name another file"):
            backup.create(made)
        (tmp_path / "b.tar.new").touch()
        with pytest.raises(BackupError, match="another backup is being made, or was killed"):
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
            with pytest.raises(BackupError, match=r"no backup was made \(.*: File too large\): name a file on another"):
                backup.create(tmp_path / "a.tar")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert list(tmp_path.glob("*.tar*")) == []

    def test_without_the_programs(self, filled, tmp_path):
        with pytest.raises(BackupError, match=r"pg_dump of PostgreSQL 99 or newer is needed \(here: .*18"):
            dumps.find("pg_dump", 99)


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
