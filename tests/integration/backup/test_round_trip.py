"""Backup and restore between real databases."""

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
from tests.integration.backup.installations import CODE, TABLES, checkpoint_batch, do, restore, rows, run
from tests.waiting import until


class TestRoundTrip:
    def test_restores_all_rows_and_files(self, installations, filled, backup_file):
        source, target = installations
        before = {table: rows(table) for table in TABLES}
        files = {name: store().path(name).read_bytes() for name in source.files()}
        assert len(files) == 2
        target.activate()
        restored = restore(backup_file)
        assert restored == backup.Restored(jobs=4, files=2, requeued=1, dropped=0)
        for table in set(TABLES) - {"jobs", "job_events"}:
            assert rows(table) == before[table] != [], table
        untouched = {job["id"]: job for job in before["jobs"] if job["status"] != "running"}
        assert {job["id"]: job for job in rows("jobs") if job["id"] in untouched} == untouched
        assert {name: store().path(name).read_bytes() for name in target.files()} == files
        database.check_schema()

    def test_running_job_resumes_from_its_checkpoint_without_a_failure(self, target, filled, backup_file):
        target.activate()
        restore(backup_file)
        claimed = do(claims.claim, "w2", has_cuda=False)
        assert (claimed.job_id, claimed.attempt, claimed.step) == (filled.job_id, 2, 20)
        (job,) = [job for job in rows("jobs") if job["id"] == str(filled.job_id)]
        assert job["failures"] == 0
        newest, older = do(newest_first, filled.job_id)
        for written in (newest, older):
            store().get(written.file, written.size_bytes, written.sha256)
        assert do(heartbeats.beat, "w1", [Beat(filled, 30, 100, [])]) == {filled.job_id: heartbeats.Instruction.LOST}

    def test_restores_into_empty_migrated_tables(self, target, backup_file):
        target.activate()
        database.migrate()
        assert restore(backup_file).jobs == 4

    def test_file_is_a_plain_tar_that_only_its_owner_can_read(self, backup_file):
        assert backup_file.stat().st_mode & 0o777 == 0o600
        with tarfile.open(backup_file) as tar:
            names = tar.getnames()
            assert names[0].startswith("files/jobs/")
            assert names[-3:] == ["database.dump", "manifest.json", "manifest.sha256"]
            manifest = json.load(tar.extractfile("manifest.json"))
        assert (manifest["schema_number"], manifest["jobs"], manifest["left_out"]) == (CODE, 4, [])
        assert [path.name for path in backup_file.parent.iterdir() if path.is_file()] == ["a.tar"]

    def test_pg_restore_reads_the_dump(self, backup_file, tmp_path):
        with tarfile.open(backup_file) as tar:
            (tmp_path / "dump").write_bytes(tar.extractfile("database.dump").read())
        program = pg_dump.find("pg_restore", 18).path
        listed = subprocess.run([program, "--list", tmp_path / "dump"], capture_output=True, text=True, check=True)
        assert "TABLE DATA public jobs" in listed.stdout

    def test_older_schema_is_migrated(self, target, filled, tmp_path):
        run("DELETE FROM checkpoints")
        with database.engine().begin() as connection:
            config = schema_version.alembic()
            config.attributes["connection"] = connection
            command.downgrade(config, "0002")
        assert backup.create(tmp_path / "old.tar").schema_number == 2
        target.activate()
        assert restore(tmp_path / "old.tar").jobs == 4
        database.check_schema()

    def test_checkpoint_that_cannot_be_read_to_its_end_is_left_out(self, target, filled, tmp_path, monkeypatch):
        """A file of an object store may be replaced while it is read."""
        newest, older = do(newest_first, filled.job_id)
        read = archive._read
        broken = store().open(newest.file).name

        def read_or_fail(source):
            if getattr(source, "name", None) != broken:
                return read(source)
            raise archive._Unreadable

        monkeypatch.setattr(archive, "_read", read_or_fail)
        assert backup.create(tmp_path / "b.tar").left_out == [newest.file]
        target.activate()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == [older]


class TestReplacedFiles:
    def replace(self, claim: Claim) -> None:
        """Replace both checkpoints by newer ones."""
        for step in (30, 40):
            do(heartbeats.beat, "w1", [Beat(claim, step, 100, [checkpoint_batch(claim, step)])])

    def test_checkpoints_replaced_while_copied_are_included(self, target, filled, tmp_path, monkeypatch):
        add = archive.Writer.add

        def replace_first(*arguments: object) -> bool:
            monkeypatch.setattr(archive.Writer, "add", add)
            self.replace(filled)
            return add(*arguments)

        monkeypatch.setattr(archive.Writer, "add", replace_first)
        before = do(newest_first, filled.job_id)
        manifest = backup.create(tmp_path / "b.tar")
        assert (len(manifest.files), manifest.left_out) == (2, [])
        assert [written.step for written in do(newest_first, filled.job_id)] == [40, 30]
        target.activate()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == before

    def test_checkpoints_replaced_before_the_copy_are_left_out_with_their_rows(
        self, target, filled, tmp_path, monkeypatch
    ):
        copy = backup._copy_files

        def replace_first(*arguments: object) -> list[str]:
            self.replace(filled)
            until(lambda: not {newest.file, older.file} & dict(store().names()).keys())  # a thread removes them
            return copy(*arguments)

        monkeypatch.setattr(backup, "_copy_files", replace_first)
        newest, older = do(newest_first, filled.job_id)
        manifest = backup.create(tmp_path / "b.tar")
        assert (manifest.files, manifest.left_out) == ([], [newest.file, older.file])
        target.activate()
        assert restore(tmp_path / "b.tar").dropped == 2
        assert rows("checkpoints") == []
        assert do(claims.claim, "w2", has_cuda=False).job_id == filled.job_id

    def test_damaged_checkpoint_is_left_out(self, target, filled, tmp_path):
        newest, older = do(newest_first, filled.job_id)
        store().path(newest.file).write_bytes(bytes(newest.size_bytes))
        assert backup.create(tmp_path / "b.tar").left_out == [newest.file]
        target.activate()
        restore(tmp_path / "b.tar")
        assert do(newest_first, filled.job_id) == [older]
