"""The files of a home: the folder, the running stack, the owner's key and the lock."""

import fcntl
import os
from pathlib import Path

import pytest

from kotrain import home
from service import config


def test_folder_equals_that_of_server(monkeypatch, tmp_path):
    monkeypatch.delenv("KOTRAIN_HOME", raising=False)
    assert home.folder() == config.Settings().home
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert home.folder() == config.Settings().home == Path.home() / ".kotrain"
    monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
    assert home.folder() == tmp_path == config.Settings().home


def test_reads_running_stack(tmp_path):
    assert home.running(tmp_path) is None
    (tmp_path / "running.json").write_text('{"url": "http://')
    assert home.running(tmp_path) is None
    (tmp_path / "running.json").write_text('{"url": "http://127.0.0.1:1", "pid": 5}')
    assert home.running(tmp_path) == home.Running(url="http://127.0.0.1:1", pid=5)


@pytest.mark.parametrize(("text", "key"), [("kt_1\n", "kt_1"), ("\n", None), (None, None)])
def test_reads_key(tmp_path, text, key):
    if text is not None:
        (tmp_path / "key").write_text(text)
    assert home.key(tmp_path) == key


def test_owner_is_process_that_holds_lock(tmp_path):
    assert home.owner(tmp_path) is None
    with (tmp_path / "lock").open("w+") as lock:
        lock.write("123\n")
        lock.flush()
        assert home.owner(tmp_path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert home.owner(tmp_path) == 123
    assert home.owner(tmp_path) is None
