"""Settings, home, disks, files and packages, broken in one way each: the doctor names it."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from service.operations.doctor import machine
from tests.integration.doctor.examination import is_well, look, says


class TestSettings:
    @pytest.fixture(autouse=True)
    def beats(self, monkeypatch):
        """As many in the short lease of tests as in an ordinary one."""
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "0.1")

    def test_a_misspelt_variable_is_named_with_the_right_one(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_LEASE_SECOND", "20")
        assert says("settings", "error", "KOTRAIN_LEASE_SECOND is not a setting", "did you mean KOTRAIN_LEASE_SECONDS?")

    def test_a_forgotten_unit(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_STALL", "20")
        assert says("settings", "error", "KOTRAIN_STALL is not a setting", "did you mean KOTRAIN_STALL_SECONDS?")

    def test_an_address_that_is_none(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BROKER_URL", "hello")
        assert "KOTRAIN_BROKER_URL: must have the form redis://" in str(look("settings"))

    def test_a_variable_that_nothing_reads(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_COLOUR", "blue")
        assert says("settings", "warning", "KOTRAIN_COLOUR")

    @pytest.mark.parametrize("name", ["KOTRAIN_URL", "KOTRAIN_KEY", "KOTRAIN_REVISION", "kotrain_slots"])
    def test_what_others_read_is_known(self, schema, monkeypatch, name):
        monkeypatch.setenv(name, "1")
        assert is_well("settings")

    def test_a_value_that_is_not_valid_hides_nothing_else(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_PORT", "many")
        monkeypatch.setenv("KOTRAIN_SLOTS", "0")
        found = [what for level, what in look("settings") if level == "error"]
        assert len(found) == 2
        assert is_well("schema")
        assert os.environ["KOTRAIN_PORT"] == "many"

    def test_one_address_alone(self, schema, monkeypatch):
        monkeypatch.delenv("KOTRAIN_BROKER_URL")
        assert says("settings", "error", "KOTRAIN_BROKER_URL is not set")

    def test_a_lease_of_two_heartbeats(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "1.5")
        assert says("settings", "warning", "lease")


class TestHome:
    def test_it_may_be_made_yet(self, embedded, place):
        place.rmdir()
        assert says("home", "warning", "does not exist yet")
        assert says("files", "warning", "not checked")
        assert not place.exists(), "the doctor makes nothing"

    def test_a_name_that_no_disk_takes(self, embedded, place, monkeypatch):
        monkeypatch.setenv("KOTRAIN_HOME", str(place / ("a" * 300)))
        assert says("home", "error", "File name too long")

    def test_a_file_in_its_place(self, embedded, place):
        place.rmdir()
        place.write_text("")
        assert says("home", "error", "not a folder")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_somebody_elses(self, embedded, place):
        place.chmod(0o711)
        place.parent.chmod(0o711)
        os.chown(place, 12345, 12345)
        assert "belongs to user 12345" in str(look("home"))

    def test_open_to_all(self, schema, place):
        place.chmod(0o777)
        assert says("home", "warning", "writable by other users")

    def test_a_key_that_all_can_read(self, schema, place):
        (place / "key").write_text("kt_secret")
        (place / "key").chmod(0o644)
        assert says("home", "error", "readable by other users")
        assert "kt_secret" not in str(look("home"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only for root the servers are somebody else's")
    def test_closed_to_the_servers_of_root(self, embedded, place):
        assert any("has no access to" in what for level, what in look("home") if level == "error")

    def test_too_long_for_a_socket(self, embedded, tmp_path, monkeypatch):
        long = tmp_path / ("x" * 100)
        long.mkdir(mode=0o711)
        monkeypatch.setenv("KOTRAIN_HOME", str(long))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("y" * 80)))
        assert any("too long for a unix socket" in what for level, what in look("home") if level == "error")


class TestDiskAndMemory:
    @pytest.mark.parametrize(("free", "level"), [(10**8, "error"), (3 * 10**9, "warning")])
    def test_a_full_disk(self, schema, place, monkeypatch, free, level):
        usage = shutil.disk_usage(place)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        assert says("disk", level, "free for home and data")

    def test_small_shared_memory(self, schema, monkeypatch):
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=2**26, free=2**26))
        assert says("memory", "warning", "/dev/shm")

    def test_few_open_files(self, schema):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        try:
            assert says("memory", "warning", "open files is 512")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestFiles:
    def test_a_probe_is_removed_again(self, schema, place):
        assert is_well("files")
        assert list((place / "files").rglob("*")) == []

    def test_a_store_that_cannot_be_written_to(self, schema, place):
        (place / "files").write_text("no folder")  # root may write into a read-only one
        assert says("files", "error", "cannot store files")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder(self, schema, place):
        (place / "files").mkdir(mode=0o500)
        assert says("files", "error", "Permission denied")

    def test_a_protocol_that_nobody_knows(self, schema, place, monkeypatch):
        monkeypatch.setenv("KOTRAIN_FILES", "floppy://a")
        assert says("files", "error", "floppy")


class TestPackages:
    def test_they_are_what_this_kotrain_asks_for(self, schema):
        assert is_well("packages")

    def test_an_old_one(self, schema, monkeypatch):
        there = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: "0.9.1" if name == "fastapi" else there(name))
        assert says("packages", "error", "fastapi 0.9.1 is installed")

    @pytest.mark.parametrize(("torch", "vision"), [("2.14.1", "0.28.0"), ("2.11.0+cpu", "0.26.0")])
    def test_a_torchvision_of_another_torch(self, schema, monkeypatch, torch, vision):
        versions = {"torch": torch, "torchvision": vision}
        there = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: versions.get(name) or there(name))
        assert says("packages", "error", torch, vision)

    def test_torch_is_not_loaded_for_it(self):
        program = (
            "import sys; from service.operations.doctor.checks import examine\n"
            "examine(['packages']); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
