"""Backup and restore between real databases: everything comes back."""

import json
import subprocess
import tarfile

from alembic import command

from service.jobs import claims, heartbeats
from service.jobs.checkpoints import newest_first
from service.jobs.claims import Claim
from service.jobs.heartbeats import Beat
from service.operations.backup import archive, backup, pg_dump
from service.storage import database, schema_version
from service.storage.files import store
from tests.integration.backup.installations import CODE, TABLES, do, keep, restore, rows, run


class TestRoundTrip:
    def test_everything_comes_back(self, places, filled, made):
        here, there = places
        before = {table: rows(table) for table in TABLES}
        files = {name: store().path(name).read_bytes() for name in here.files()}
        assert len(files) == 2
        there.enter()
        restored = restore(made)
        assert restored == backup.Restored(jobs=4, files=2, requeued=1, dropped=0)
        for table in set(TABLES) - {"jobs", "job_events"}:
            assert rows(table) == before[table] != [], table
        untouched = {job["id"]: job for job in before["jobs"] if job["status"] != "running"}
        assert {job["id"]: job for job in rows("jobs") if job["id"] in untouched} == untouched
        assert {name: store().path(name).read_bytes() for name in there.files()} == files
        database.check_schema()

    def test_what_was_running_goes_on_from_its_checkpoint_without_blame(self, places, filled, made):
        places[1].enter()
        restore(made)
        again = do(claims.claim, "w2", has_cuda=False)
        assert (again.job_id, again.attempt, again.step) == (filled.job_id, 2, 20)
        (found,) = [job for job in rows("jobs") if job["id"] == str(filled.job_id)]
        assert found["failures"] == 0
        newest, older = do(newest_first, filled.job_id)
        for written in (newest, older):
            store().get(written.file, written.size_bytes, written.sha256)
        assert do(heartbeats.beat, "w1", [Beat(filled, 30, 100, [])]) == {filled.job_id: heartbeats.Instruction.LOST}

    def test_into_migrated_tables_that_are_empty(self, places, made):
        places[1].enter()
        database.migrate()
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
        program = pg_dump.find("pg_restore", 18).path
        listed = subprocess.run([program, "--list", tmp_path / "dump"], capture_output=True, text=True, check=True)
        assert "TABLE DATA public jobs" in listed.stdout

    def test_an_older_schema_is_brought_up(self, places, filled, tmp_path):
        run("DELETE FROM checkpoints")
        with database.engine().begin() as connection:
            config = schema_version.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "0002")
        assert backup.create(tmp_path / "old.tar").schema_number == 2
        places[1].enter()
        assert restore(tmp_path / "old.tar").jobs == 4
        database.check_schema()

    def test_one_that_cannot_be_read_to_its_end_is_left_out(self, places, filled, tmp_path, monkeypatch):
        """As a file of an object store that is replaced while it is read."""
        newest, older = do(newest_first, filled.job_id)
        read = archive._read
        broken = store().open(newest.file).name

        def read_or_fail(source):
            if getattr(source, "name", None) != broken:
                return read(source)
            raise archive._Unreadable

        monkeypatch.setattr(archive, "_read", read_or_fail)
        assert backup.create(tmp_path / "b.tar").left_out == [newest.file]
        places[1].enter()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == [older]


class TestFilesThatGo:
    def replaced(self, claim: Claim) -> None:
        """Newer checkpoints take the place of both."""
        for step in (30, 40):
            do(heartbeats.beat, "w1", [Beat(claim, step, 100, [keep(claim, step)])])

    def test_what_is_replaced_while_it_is_copied_is_in_it(self, places, filled, tmp_path, monkeypatch):
        add = archive.Writer.add

        def replace_first(*arguments: object) -> bool:
            monkeypatch.setattr(archive.Writer, "add", add)
            self.replaced(filled)
            return add(*arguments)

        monkeypatch.setattr(archive.Writer, "add", replace_first)
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
        assert do(claims.claim, "w2", has_cuda=False).job_id == filled.job_id

    def test_a_damaged_one_is_left_out(self, places, filled, tmp_path):
        newest, older = do(newest_first, filled.job_id)
        store().path(newest.file).write_bytes(bytes(newest.size_bytes))
        assert backup.create(tmp_path / "b.tar").left_out == [newest.file]
        places[1].enter()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == [older]
