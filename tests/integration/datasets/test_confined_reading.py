"""Files are read in a confined process: what goes wrong there is an error that names the file and leaves nothing."""

import hashlib
import io
import multiprocessing
import socket
import subprocess
import threading
import zipfile

import pytest
from PIL import Image

from service.config import settings
from service.datasets.uploads import reader
from service.datasets.uploads.upload import Arrival
from service.errors import StorageFull
from service.web.routes.datasets import IN_PROGRESS, UPLOADS
from tests.integration.datasets import readers
from tests.integration.datasets.test_upload import CSV, problem
from tests.waiting import until


@pytest.fixture
def setting(data_dir, monkeypatch):
    def choose(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    return choose


@pytest.fixture
def nothing_remains(data_dir):
    yield
    assert [path.name for path in (data_dir / "own").rglob("*") if path.name != ".arriving"] == []


@pytest.mark.usefixtures("nothing_remains")
@pytest.mark.parametrize(
    ("instead", "detail"),
    [
        (readers.kill, "cannot be read: its reader ended with signal SIGSEGV; is it damaged?"),
        (readers.leave, "cannot be read: its reader ended with status 3; is it damaged?"),
        (readers.lie, "cannot be read: its reader ended with no answer; is it damaged?"),
        (readers.rename, "cannot be read: its reader ended with no answer; is it damaged?"),
        (readers.hang, "takes more than 1 s, which is the limit (KOTRAIN_MAX_READ_SECONDS); split it"),
    ],
)
def test_reader_that_fails_is_an_error_naming_the_file(api, send, setting, monkeypatch, instead, detail):
    setting(KOTRAIN_MAX_READ_SECONDS="1")
    monkeypatch.setattr(reader, "_main", instead)
    answer = problem(send("mine", CSV, format="csv"), 422, "")
    assert detail in answer
    assert "the csv file of 'mine' (" in answer
    monkeypatch.undo()
    assert multiprocessing.active_children() == []
    assert api.get("/v1/datasets").status_code == 200


def test_reader_decides_neither_owner_nor_checksum(api, send, monkeypatch):
    monkeypatch.setattr(reader, "_main", readers.forge)
    sent = send("mine", CSV, format="csv").json()
    assert (sent["owner"], sent["size_bytes"]) == ("ada", len(CSV))
    assert sent["sha256"] == hashlib.sha256(CSV).hexdigest()
    assert api.get("/v1/datasets/tables/mine").json() == sent


@pytest.mark.usefixtures("nothing_remains")
def test_pixels_are_counted_before_they_are_decoded(send, setting):
    """Flat images of 6,300 x 6,300 pixels are 40 kB each and took a fifth of a second."""
    setting(KOTRAIN_MAX_UPLOAD_PIXELS="119070000")  # three images
    image, archive = io.BytesIO(), io.BytesIO()
    Image.new("L", (6300, 6300)).save(image, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(30):
            file.writestr(f"class-{number % 3}/{number:03}.png", image.getvalue())
    answer = problem(send(content=archive.getvalue(), image_size=8), 422, "")
    assert answer.startswith("the images have more than 119,070,000 pixels in all, which is the limit")


def test_reader_reaches_nothing_but_its_folder(tmp_path):
    folder, secret = tmp_path / "upload", tmp_path / "key"
    folder.mkdir()
    secret.write_text("kt_secret")
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "60"]) as other:
        port = server.getsockname()[1]
        process = context.Process(target=readers.attack, args=(theirs, str(folder), str(secret), port, other.pid))
        process.start()
        theirs.close()
        is_confined, succeeded = ours.recv()
        process.join()
        is_alive = other.poll() is None
        other.kill()
    if not is_confined:
        pytest.skip("this kernel has no Landlock")
    assert succeeded == ["use the own folder"]
    assert is_alive
    assert not (tmp_path / "planted").exists()


def test_user_has_two_uploads_at_a_time(api, send, setting, as_user):
    setting(KOTRAIN_MAX_UPLOADS_PER_USER="2")
    done = threading.Event()
    UPLOADS.submit(done.wait)  # an upload that is being read
    others = as_user("bob")
    threads = [
        threading.Thread(target=send, args=(f"mine-{number}", CSV), kwargs={"format": "csv"}) for number in (1, 2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(UPLOADS) == 3)
    refused = send("mine-3", CSV, format="csv")
    assert "you have 2 uploads in progress, the limit (KOTRAIN_MAX_UPLOADS_PER_USER)" in problem(refused, 429)
    assert refused.headers["retry-after"] == "5"
    query = {"name": "theirs", "format": "csv"}
    theirs = threading.Thread(
        target=api.post, args=("/v1/datasets",), kwargs={"params": query, "content": CSV, "headers": others}
    )
    theirs.start()
    until(lambda: len(UPLOADS) == 4)
    done.set()
    for thread in (*threads, theirs):
        thread.join()
    assert not IN_PROGRESS
    assert {entry["name"] for entry in api.get("/v1/datasets").json()["data"]} >= {
        "tables/mine-1",
        "tables/mine-2",
        "tables/theirs",
    }


@pytest.mark.usefixtures("nothing_remains")
def test_nothing_is_stored_below_the_floor_of_free_space(send, setting, tmp_path):
    setting(KOTRAIN_MIN_FREE_BYTES=str(2**60))
    answer = problem(send("mine", CSV, format="csv"), 507)
    assert answer.startswith("the disk of the data folder has ")
    assert "must stay free (KOTRAIN_MIN_FREE_BYTES)" in answer
    (tmp_path / "upload").mkdir()
    arrival = Arrival(tmp_path / "upload", 100, 2**60)
    with pytest.raises(StorageFull, match="KOTRAIN_MIN_FREE_BYTES"):
        arrival.write(b"x")
    arrival.remove()
