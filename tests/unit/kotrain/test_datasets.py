"""Uploads through the SDK and `kotrain data`, on the real API in this process."""

import json
from functools import partial

import pytest

from kotrain import Client, Conflict, InvalidRequest, NotFound, commands
from service.config import settings
from service.datasets.layouts import own_names
from tests.unit.service.datasets.uploads.files import csv_of, folders, write_file


@pytest.fixture(autouse=True)
def data_dir(schema, tmp_path, monkeypatch):
    monkeypatch.setenv("KOTRAIN_DATA_DIR", str(tmp_path / "data"))
    settings.cache_clear()
    yield tmp_path / "data"
    settings.cache_clear()


@pytest.fixture
def kotrain(api, monkeypatch, capsys):
    """Run `kotrain data ...`: (exit status, standard output, standard error)."""
    monkeypatch.setattr("kotrain.client.Client", partial(Client, http=api))

    def run(*arguments):
        status = commands.run(["data", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_client_uploads_and_removes_data_set(client, tmp_path):
    sent = []
    file = folders(tmp_path / "flowers.zip")
    dataset = client.add_dataset(file, "flowers", image_size=4, on_sent=sent.append)
    assert (dataset.name, dataset.shape, sent) == ("images/flowers", [3, 4, 4], [file.stat().st_size])
    assert client.dataset(dataset.name) == dataset
    assert next(entry for entry in client.datasets() if entry.own).name == dataset.name
    job = client.submit(
        {"dataset": dataset.name, "model": "mlp", "optimizer": "adam", "budget": {"steps": 1}, "batch_size": 2}
    )
    with pytest.raises(Conflict, match=str(job.id)):
        client.remove_dataset(dataset.name)
    client.cancel(job)
    client.remove_dataset(dataset.name)
    with pytest.raises(NotFound, match="unknown data set 'images/flowers'"):
        client.dataset(dataset.name)


def test_format_defaults_to_file_extension(client, tmp_path):
    content = csv_of()
    assert client.add_dataset(write_file(tmp_path / "a.CSV", content), "one").name == "tables/one"
    assert client.add_dataset(write_file(tmp_path / "a", content), "two", format="csv").name == "tables/two"
    with pytest.raises(InvalidRequest, match="format"):
        client.add_dataset(write_file(tmp_path / "a.txt", content), "three")


def test_name_without_kind(kotrain, client, tmp_path):
    client.add_dataset(write_file(tmp_path / "a.csv", csv_of()), "mine")
    assert "tables/mine" in kotrain("show", "mine")[1]
    client.add_dataset(folders(tmp_path / "mine.zip"), "mine")
    assert kotrain("show", "mine")[::2] == (2, "kotrain: Invalid value: choose one of images/mine, tables/mine\n")
    assert kotrain("show", "yours")[2] == "kotrain: Invalid value: no uploaded data set 'yours'\n"
    assert "'digits' is a built-in data set" in kotrain("remove", "digits")[2]


def test_commands_add_show_list_and_remove(kotrain, tmp_path, data_dir):
    file = write_file(tmp_path / "iris.csv", csv_of(40, header="a,b,species"))
    status, out, _ = kotrain("add", file, "iris", "--label", "species")
    assert status == 0
    assert out.splitlines()[0] == "tables/iris: 40 rows of 2 numbers, 3 classes, uploaded by ada"
    assert "daisy" in out
    status, out, _ = kotrain("show", "tables/iris", "--json")
    assert json.loads(out)["columns"] == ["a", "b"]
    assert "tables/iris" in kotrain("list")[1]
    assert json.loads(kotrain("list", "--json")[1])["data"][-1]["name"] == "tables/iris"
    assert kotrain("remove", "tables/iris") == (0, "", "removed tables/iris\n")
    assert own_names(data_dir) == []


def test_columns_are_dropped_and_kept(kotrain, tmp_path):
    file = write_file(tmp_path / "a.csv", csv_of(header="id,b,label"))
    status, _, err = kotrain("add", file, "a")
    assert (status, err.strip()) == (
        1,
        "kotrain: does column 'id' identify the rows? All its values differ, and a model could memorize them: "
        "leave it out with drop=id, or read it as numbers with keep=id",
    )
    assert "columns" in json.loads(kotrain("add", file, "kept", "--keep", "id", "--json")[1])
    assert json.loads(kotrain("add", file, "dropped", "--drop", "id", "--json")[1])["columns"] == ["b"]


def test_prints_error(kotrain, tmp_path):
    status, _, err = kotrain("add", write_file(tmp_path / "a.csv", csv_of().replace("3,1.5", "3,so")), "a")
    assert (status, err.strip()) == (
        1,
        "kotrain: row 5, column 'b' is not a number: 'so'; write a column of 1 and 0 for each category, or leave it "
        "out with drop=b",
    )
    assert kotrain("add", tmp_path / "absent.csv", "a")[0] == 2
    status, _, err = kotrain("remove", "tables/a")
    assert (status, "unknown data set 'tables/a'" in err) == (1, True)
