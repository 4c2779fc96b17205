"""`kotrain data fetch` downloads published files from a local web server."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.datasets.layouts import is_present
from service.specs.catalog.datasets import DATASETS
from workers.training.fetch import BY_HAND, SOURCES, File, fetch, main


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server and the folder that it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()
        thread.join()


def publish_mnist(site: tuple[str, Path]) -> tuple[File, ...]:
    address, folder = site
    files = []
    for file in SOURCES["mnist"]:
        name = file.url.rpartition("/")[2]
        (folder / name).write_bytes(gzip.compress(name.encode()))
        files.append(File(address + name, file.folder, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    return tuple(files)


def test_each_data_set_has_sources_or_instructions() -> None:
    assert set(SOURCES) | set(BY_HAND) == set(DATASETS)


def test_fetches_files(site: tuple[str, Path], tmp_path: Path) -> None:
    fetch("mnist", tmp_path / "data", {"mnist": publish_mnist(site)})
    assert is_present("mnist", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist"]


def test_fetches_archive(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        for name in ("train", "test", "meta"):
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    md5 = hashlib.md5((folder / "cifar.tar.gz").read_bytes()).hexdigest()
    fetch("cifar100", tmp_path / "data", {"cifar100": (File(address + "cifar.tar.gz", "", md5, is_archive=True),)})
    assert is_present("cifar100", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-100-python"]


def test_wrong_checksum_leaves_no_files(
    site: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *good, bad = publish_mnist(site)
    sources = {"mnist": (*good, File(bad.url, bad.folder, "0" * 32))}
    assert main(["mnist", "--data-dir", str(tmp_path / "data")], sources) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"cannot fetch mnist: {bad.url} differs from its published checksum"
    assert list((tmp_path / "data").iterdir()) == []


def test_connection_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file.gz"
        sources = {"mnist": (File(address, "mnist", None),)}
        assert main(["mnist", "--data-dir", str(tmp_path / "data")], sources) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"), [("imagenet", "by hand"), ("digits", "scikit-learn"), ("absent", "unknown data set")]
)
def test_explains_data_set_without_download(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--data-dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
