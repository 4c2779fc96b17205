"""The doctor names faults of the settings, the home, disks, files and packages."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from service.jobs import memory
from service.operations.doctor import machine
from tests import plugin_packages
from tests.integration.doctor.examination import examine, finds, is_ok


class TestPlugins:
    def test_those_that_cannot_be_used_are_named_with_the_reason(self, schema, tmp_path, monkeypatch):
        module = (
            "from torch.optim import SGD\n\nclass Good(SGD):\n    def __init__(self, params, lr: float = 0.1): ...\n"
        )
        files = {"__init__.py": "raise SystemExit  # is not imported", "good.py": module, "empty.py": ""}
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            plugin_packages.install(
                tmp_path,
                "good = d_lab.good:Good\nempty = d_lab.empty:Empty",
                {f"d_lab/{name}": text for name, text in files.items()},
            )
            assert finds("plug-ins", "error", "d_lab/empty of lab 1.2 cannot be used", "defines no optimizer")
            assert any("installed: d_lab/good@" in text for level, text in examine("plug-ins") if level == "ok")
        plugin_packages.restart()


class TestSettings:
    @pytest.fixture(autouse=True)
    def beats(self, monkeypatch):
        """A heartbeat interval that fits the short lease of tests."""
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "0.1")

    def test_misspelt_variable_is_named_with_a_suggestion(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_LEASE_SECOND", "20")
        assert finds(
            "settings", "error", "KOTRAIN_LEASE_SECOND is not a setting", "did you mean KOTRAIN_LEASE_SECONDS?"
        )

    def test_variable_without_its_unit_is_named_with_a_suggestion(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_STALL", "20")
        assert finds("settings", "error", "KOTRAIN_STALL is not a setting", "did you mean KOTRAIN_STALL_SECONDS?")

    def test_invalid_address_is_an_error(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BROKER_URL", "hello")
        assert "KOTRAIN_BROKER_URL: must have the form redis://" in str(examine("settings"))

    def test_unknown_variable_is_a_warning(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_COLOUR", "blue")
        assert finds("settings", "warning", "KOTRAIN_COLOUR")

    @pytest.mark.parametrize("name", ["KOTRAIN_URL", "KOTRAIN_KEY", "KOTRAIN_REVISION", "kotrain_slots"])
    def test_variables_of_other_programs_are_known(self, schema, monkeypatch, name):
        monkeypatch.setenv(name, "1")
        assert is_ok("settings")

    def test_invalid_value_does_not_hide_other_findings(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_PORT", "many")
        monkeypatch.setenv("KOTRAIN_SLOTS", "0")
        errors = [text for level, text in examine("settings") if level == "error"]
        assert len(errors) == 2
        assert is_ok("schema")
        assert os.environ["KOTRAIN_PORT"] == "many"

    def test_single_address_is_an_error(self, schema, monkeypatch):
        monkeypatch.delenv("KOTRAIN_BROKER_URL")
        assert finds("settings", "error", "KOTRAIN_BROKER_URL is not set")

    def test_lease_of_two_heartbeats_is_a_warning(self, schema, monkeypatch):
        monkeypatch.setenv("KOTRAIN_BEAT_SECONDS", "1.5")
        assert finds("settings", "warning", "lease")


class TestHome:
    def test_missing_home_is_a_warning_and_is_not_created(self, embedded, place):
        place.rmdir()
        assert finds("home", "warning", "does not exist yet")
        assert finds("files", "warning", "not checked")
        assert not place.exists(), "the doctor must create nothing"

    def test_name_too_long_is_an_error(self, embedded, place, monkeypatch):
        monkeypatch.setenv("KOTRAIN_HOME", str(place / ("a" * 300)))
        assert finds("home", "error", "File name too long")

    def test_file_in_its_place_is_an_error(self, embedded, place):
        place.rmdir()
        place.write_text("")
        assert finds("home", "error", "not a folder")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can change a folder's owner")
    def test_home_of_another_user_is_an_error(self, embedded, place):
        place.chmod(0o711)
        place.parent.chmod(0o711)
        os.chown(place, 12345, 12345)
        assert "belongs to user 12345" in str(examine("home"))

    def test_home_writable_by_others_is_a_warning(self, schema, place):
        place.chmod(0o777)
        assert finds("home", "warning", "writable by other users")

    def test_key_readable_by_others_is_an_error(self, schema, place):
        (place / "key").write_text("kt_secret")
        (place / "key").chmod(0o644)
        assert finds("home", "error", "readable by other users")
        assert "kt_secret" not in str(examine("home"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")
    def test_home_closed_to_the_server_user_is_an_error(self, embedded, place):
        assert any("has no access to" in text for level, text in examine("home") if level == "error")

    def test_path_too_long_for_a_socket_is_an_error(self, embedded, tmp_path, monkeypatch):
        long = tmp_path / ("x" * 100)
        long.mkdir(mode=0o711)
        monkeypatch.setenv("KOTRAIN_HOME", str(long))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("y" * 80)))
        assert any("too long for a unix socket" in text for level, text in examine("home") if level == "error")


class TestLimits:
    @pytest.mark.parametrize(("free", "level"), [(10**8, "error"), (3 * 10**9, "warning")])
    def test_full_disk_is_reported(self, schema, place, monkeypatch, free, level):
        usage = shutil.disk_usage(place)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        assert finds("disk", level, "free for home and data")

    def test_too_many_slots_for_the_memory_are_an_error(self, schema, monkeypatch):
        assert is_ok("memory")
        monkeypatch.setattr(memory, "machine_bytes", lambda: 2**30)
        monkeypatch.setenv("KOTRAIN_SLOTS", "2")
        assert finds("memory", "error", "2 slots leave 154 MiB of 1 GiB", "a job needs at least 256 MiB")
        monkeypatch.setenv("KOTRAIN_JOB_MEMORY_BYTES", str(2**29))
        assert finds("memory", "warning", "2 jobs of 512 MiB")

    def test_low_limit_of_open_files_is_a_warning(self, schema, monkeypatch):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
        assert finds("open files", "warning", "the hard limit of open files is 2048")


class TestFiles:
    def test_probe_is_removed(self, schema, place):
        assert is_ok("files")
        assert list((place / "files").rglob("*")) == []

    def test_unwritable_store_is_an_error(self, schema, place):
        (place / "files").write_text("no folder")  # root may write into a read-only folder
        assert finds("files", "error", "cannot store files")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder_is_an_error(self, schema, place):
        (place / "files").mkdir(mode=0o500)
        assert finds("files", "error", "Permission denied")

    def test_unknown_protocol_is_an_error(self, schema, place, monkeypatch):
        monkeypatch.setenv("KOTRAIN_FILES", "floppy://a")
        assert finds("files", "error", "floppy")


class TestPackages:
    def test_installed_packages_meet_the_requirements(self, schema):
        assert is_ok("packages")

    def test_outdated_package_is_an_error(self, schema, monkeypatch):
        installed = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: "0.9.1" if name == "fastapi" else installed(name))
        assert finds("packages", "error", "fastapi 0.9.1 is installed")

    @pytest.mark.parametrize(("torch", "vision"), [("2.14.1", "0.28.0"), ("2.11.0+cpu", "0.26.0")])
    def test_torchvision_of_another_torch_is_an_error(self, schema, monkeypatch, torch, vision):
        versions = {"torch": torch, "torchvision": vision}
        installed = machine.metadata.version
        monkeypatch.setattr(machine.metadata, "version", lambda name: versions.get(name) or installed(name))
        assert finds("packages", "error", torch, vision)

    def test_check_does_not_load_torch(self):
        program = (
            "import sys; from service.operations.doctor.checks import examine\n"
            "examine(['packages']); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
