"""Uploads over HTTP: stored and listed, or refused without leaving files."""

import asyncio
import base64
import io
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.datasets.layouts import describe
from service.datasets.uploads.upload import Arrival, arrive
from service.errors import Unavailable
from service.web.routes.datasets import UPLOADS
from tests.integration.datasets.conftest import npz
from tests.unit.service.datasets.uploads.files import CLASSES, csv_of, folders, jsonl_of, parquet
from tests.waiting import until

LABELS = np.arange(30) % 3
CSV = csv_of(30).encode()


def files_in(data_dir) -> list[str]:
    """Relative paths of all files in the data folder."""
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if path.is_file())


def problem(response, status, pointer=None) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    if pointer is not None:
        assert [error["pointer"] for error in body["errors"]] == [pointer]
    return body["detail"]


def test_zip_of_images_is_stored(api, send, data_dir):
    response = send()
    assert response.status_code == 201, response.text
    assert response.headers["location"] == "/v1/datasets/images/flowers"
    body = response.json()
    expected = {
        "name": "images/flowers",
        "kind": "image",
        "title": "12 images, 6 x 8 color, 3 classes, uploaded by ada",
        "classes": 3,
        "class_names": list(CLASSES),
        "records": 9,
        "shape": [3, 6, 8],
        "train_per_class": [3, 3, 3],
        "test_per_class": [1, 1, 1],
        "present": True,
        "fetch": None,
        "own": True,
        "owner": "ada",
        "notes": [],
        "warnings": ["12 of 12 images have a single color."],
        "file_format": "zip",
    }
    assert body.items() >= expected.items()
    assert [record["label"] for record in body["preview"]] == list(CLASSES) * 3
    url = body["preview"][0]["image"]
    assert Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))).size == (8, 6)
    assert api.get(response.headers["location"]).json() == body
    names = ("data.npz", "dataset.json", "preview.json")
    assert files_in(data_dir) == [f"own/images/flowers/{name}" for name in names]


@pytest.mark.parametrize(
    ("query", "content", "name", "record"),
    [
        ({"format": "csv"}, CSV, "tables/mine", {"values": [0.0, 0.0]}),
        ({"format": "csv", "label": "kind"}, CSV.replace(b"label", b"kind"), "tables/mine", {"values": [0.0, 0.0]}),
        ({"format": "jsonl"}, jsonl_of(30).encode(), "texts/mine", {"text": "text 0"}),
        ({"format": "npz"}, npz(x=np.zeros((30, 100)), y=LABELS), "tables/mine", {"values": [0.0] * 32}),
        ({"format": "npz"}, npz(x=np.zeros((30, 4, 4)), y=LABELS), "images/mine", {}),
    ],
)
def test_other_formats_are_stored(api, send, query, content, name, record):
    response = send("mine", content, **query)
    assert response.status_code == 201, response.text
    body = response.json()
    assert (body["name"], body["records"], sum(body["test_per_class"])) == (name, 24, 6)
    assert any(preview.items() >= record.items() for preview in body["preview"])


def test_parquet_is_stored_and_long_texts_are_cut_in_the_preview(send, tmp_path):
    file = parquet(tmp_path / "a", text=["x" * 300] * 30, label=LABELS)
    body = send("mine", file.read_bytes(), format="parquet").json()
    assert body["preview"][0]["text"] == "x" * 200


def test_uploads_are_in_the_list_and_in_the_catalog(api, send):
    send()
    listed = {entry["name"]: entry for entry in api.get("/v1/datasets").json()["data"]}
    assert listed["digits"].items() >= {"own": False, "owner": None, "present": True, "records": 1000}.items()
    assert listed["mnist"]["fetch"] == "kotrain data fetch mnist"
    own = listed["images/flowers"]
    assert own.items() >= {"own": True, "owner": "ada", "records": 9}.items()
    entry = next(entry for entry in api.get("/v1/catalog").json()["datasets"] if entry["name"] == "images/flowers")
    assert entry.items() >= {"kind": "image", "classes": 3, "present": True, "fetch": None}.items()
    assert entry["params"]["properties"].keys() == {"split_seed", "limit"}


def test_upload_may_be_larger_than_other_bodies(send):
    x = np.random.default_rng(0).normal(size=(30, 10_000))
    assert send("wide", npz(x=x, y=LABELS), format="npz").json()["shape"] == [10_000]


class TestTooLarge:
    DETAIL = "the file is larger than the limit of 3,000,000 bytes (KOTRAIN_MAX_UPLOAD_BYTES)"

    def test_announced_size_is_refused_unread(self, send, data_dir):
        response = send(content=b"x" * 3_000_001)
        assert problem(response, 413) == self.DETAIL
        assert response.headers["connection"] == "close"
        assert not data_dir.exists()  # nothing was read

    def test_unannounced_size_is_refused_while_reading(self, send, data_dir):
        pieces = (b"x" * 1_000_000 for _ in range(4))
        assert problem(send(content=pieces), 413) == self.DETAIL
        assert files_in(data_dir) == []


def test_invalid_queries_are_refused_unread(send, data_dir):
    for name in ("Flowers", "../flowers", ".flowers", "", "x" * 49, "flowers\n"):
        problem(send(name), 422, "name")
    for pointer, value in {"format": "pickle", "image_size": 1000, "colour": "red", "label": ""}.items():
        problem(send(**{pointer: value}), 422, pointer)
    problem(send(label="species"), 422, "label")
    problem(send(content=CSV, format="csv", image_size=8), 422, "image_size")
    assert not data_dir.exists()


def test_invalid_contents_leave_no_files(send, data_dir):
    detail = problem(send(content=CSV.replace(b"3,1.5", b"3,so"), format="csv"), 422, "")
    assert detail.startswith("row 5, column 'b' is not a number: 'so'; write")
    assert problem(send(content=b""), 422, "") == "the file is empty"
    problem(send(content=CSV, format="csv", label="kind"), 422, "label")
    assert files_in(data_dir) == []
    assert list((data_dir / "own/.arriving").iterdir()) == []


def test_key_is_required(api, send, data_dir):
    del api.headers["Authorization"]
    problem(send(), 401)
    assert not data_dir.exists()


class TestNameInUse:
    def test_is_refused_before_the_content_is_read(self, send):
        send()
        assert "data set 'images/flowers' already exists" in problem(send(content=b"not even read"), 409)

    def test_is_refused_once_the_kind_of_data_is_known(self, send, data_dir):
        send("mine", CSV, format="csv")
        before = files_in(data_dir)
        assert "data set 'tables/mine' already exists" in problem(send("mine", CSV, format="csv"), 409)
        assert send("mine", npz(x=np.zeros((30, 4, 4)), y=LABELS), format="npz").status_code == 201  # of another kind
        assert [path for path in files_in(data_dir) if "tables" in path] == before


def test_disconnect_leaves_no_files_and_logs_no_error(api, data_dir, key):
    """The client disconnects in the middle of the upload."""
    sent = []
    messages = [{"type": "http.request", "body": b"x" * 100, "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/datasets",
        "raw_path": b"/v1/datasets",
        "query_string": b"name=flowers&format=zip",
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"1000")],
    }

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(create_app()(scope, receive, send))
    assert sent[0]["status"] == 400
    assert files_in(data_dir) == []
    assert list((data_dir / "own/.arriving").iterdir()) == []


def test_files_of_dead_uploads_are_removed(send, data_dir):
    """A process that is in the middle of an upload, of this API or of another, has locked its folder."""
    place = data_dir / "own/.arriving"
    place.mkdir(parents=True)
    (place / "dead").mkdir()
    (place / "starting").mkdir()
    (place / "alive").mkdir()
    alive = Arrival(place / "alive", 100)
    for name in ("dead", "alive"):
        os.utime(place / name, (time.time() - 100, time.time() - 100))
    assert send().status_code == 201
    assert sorted(path.name for path in place.iterdir()) == ["alive", "starting"]
    alive.remove()
    os.utime(place / "starting", (time.time() - 100, time.time() - 100))
    with TestClient(create_app()):
        assert list(place.iterdir()) == []


def test_shutdown_during_an_upload_leaves_no_files(key, data_dir):
    """uvicorn cancels what does not end in time."""
    sent = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/datasets",
        "raw_path": b"/v1/datasets",
        "query_string": b"name=flowers&format=zip",
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"1000")],
    }

    async def cancelled_while_it_receives():
        is_receiving = asyncio.Event()

        async def receive():
            is_receiving.set()
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        task = asyncio.create_task(create_app()(scope, receive, send))
        await is_receiving.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancelled_while_it_receives())
    assert sent[0]["status"] == 503
    assert list((data_dir / "own/.arriving").iterdir()) == []


def test_returns_503_if_the_data_folder_is_not_writable(send, data_dir):
    data_dir.mkdir()
    (data_dir / "own").write_text("no folder")
    assert "cannot write to the data folder: Not a directory" in problem(send(), 503)


def test_data_set_with_an_unreadable_description_does_not_exist(api, send, data_dir):
    send()
    (data_dir / "own/images/flowers/dataset.json").write_text('{"version": 2}')
    assert describe("images/flowers", data_dir) is None
    problem(api.get("/v1/datasets/images/flowers"), 404)
    assert "images/flowers" not in {entry["name"] for entry in api.get("/v1/datasets").json()["data"]}


def test_description_is_read_again_after_a_failure(api, send, data_dir):
    """For example too many open files: the data set is found again once they are closed."""
    send()
    description = data_dir / "own/images/flowers/dataset.json"
    os.utime(description, ns=(1, 1))  # another time of modification: it is not cached
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, open_files[1]))
    try:
        assert describe("images/flowers", data_dir) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
    assert describe("images/flowers", data_dir) is not None


def test_concurrent_uploads_do_not_disturb_each_other(data_dir):
    """Each upload removes what dead uploads left while others begin and end."""
    errors = []

    def begin_and_end():
        try:
            for _ in range(300):
                arrive(data_dir, 1).remove()
        except Unavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=begin_and_end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class TestQueue:
    """Uploads are read one at a time; the others wait in a queue that does not block other requests."""

    @pytest.fixture
    def reading(self):
        """An upload that is being read until this event is set."""
        done = threading.Event()
        UPLOADS.submit(done.wait)
        yield done
        done.set()
        until(lambda: len(UPLOADS) == 0)

    def test_waiting_uploads_do_not_block_other_requests(self, api, send, reading, monkeypatch):
        monkeypatch.setattr(UPLOADS, "max_waiting", 50)  # more than the threads
        with ThreadPoolExecutor(45) as pool:
            requests = [pool.submit(send, f"mine-{number}", CSV, format="csv") for number in range(45)]
            until(lambda: len(UPLOADS) == 46)
            assert api.get("/v1/me").status_code == 200
            assert not any(request.done() for request in requests)
            reading.set()
            assert {request.result().status_code for request in requests} == {201}

    def test_returns_503_when_queue_is_full(self, send, reading):
        with ThreadPoolExecutor(UPLOADS.max_waiting) as pool:
            requests = [pool.submit(send, f"mine-{number}", CSV, format="csv") for number in range(UPLOADS.max_waiting)]
            until(lambda: len(UPLOADS) == UPLOADS.max_waiting + 1)
            refused = send("mine", CSV, format="csv")
            assert problem(refused, 503) == "the queue of uploads is full (8 waiting); try again in a few seconds"
            assert refused.headers["retry-after"] == "5"
            reading.set()
            assert {request.result().status_code for request in requests} == {201}


def test_unknown_data_set_returns_404(api):
    for method in ("GET", "DELETE"):
        detail = problem(api.request(method, "/v1/datasets/images/flowers"), 404)
        assert detail == "unknown data set 'images/flowers'; no data set has been uploaded yet (POST /v1/datasets)"
        detail = problem(api.request(method, "/v1/datasets/pictures/flowers"), 404)
        assert detail == "unknown kind of data set 'pictures'; choose one of images, texts, tables"
        for name in ("..%2f..", "x%00", "x%0a"):
            problem(api.request(method, f"/v1/datasets/images/{name}"), 404)


def test_zip_with_a_top_folder_is_stored(send, tmp_path):
    content = folders(tmp_path / "deep.zip", top="flowers/").read_bytes()
    assert send(content=content, image_size=4).json()["shape"] == [3, 4, 4]
