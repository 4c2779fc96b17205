"""Command-line arguments become the body of a job submission."""

import io
import json

import pytest
import typer

from kotrain import request_body


def body(*source, fields=None, params=(), tags=()):
    return request_body.build(list(source), fields or {}, params, tags)


def test_three_names_are_dataset_model_and_optimizer():
    assert body("digits", "mlp", "adam", fields={"seed": 3, "batch_size": None}) == {
        "dataset": "digits",
        "model": "mlp",
        "optimizer": "adam",
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("optimizer.gamma=0.1", {"optimizer": {"name": "ko", "params": {"gamma": 0.1}}}),
        ("optimizer.params.base=sgd", {"optimizer": {"name": "ko", "params": {"base": "sgd"}}}),
        ("model.hidden=[64, 64]", {"model": {"name": "mlp", "params": {"hidden": [64, 64]}}}),
        ("optimizer.bounded=true", {"optimizer": {"name": "ko", "params": {"bounded": True}}}),
        ("schedule=cosine", {"schedule": "cosine"}),
        ("schedule.name=step", {"schedule": {"name": "step"}}),
        ("budget.steps=5", {"budget": {"steps": 5}}),
        ("target.value=0.9", {"target": {"value": 0.9}}),
        ("optimizer.lr=.001", {"optimizer": {"name": "ko", "params": {"lr": 0.001}}}),
        ("optimizer.lr=1.", {"optimizer": {"name": "ko", "params": {"lr": 1.0}}}),
        ("optimizer.lr=+1e-3", {"optimizer": {"name": "ko", "params": {"lr": 0.001}}}),
        ("schedule=1d", {"schedule": "1d"}),
    ],
)
def test_param_sets_field_at_its_path(param, expected):
    names = {"dataset": "digits", "model": "mlp", "optimizer": "ko"}
    assert body("digits", "mlp", "ko", params=[param]) == {**names, **expected}


def test_params_of_one_optimizer_are_merged():
    spec = body("digits", "mlp", "ko", params=["optimizer.gamma=1", "optimizer.collision=hard"])
    assert spec["optimizer"] == {"name": "ko", "params": {"gamma": 1, "collision": "hard"}}


def test_options_override_fields_of_file(tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"dataset": "digits", "seed": 1, "tags": {"a": "1", "b": "2"}}))
    assert body(str(file), fields={"seed": 2}, tags=["b:3", "c=4=5", "d:6=7", "e=8:9"]) == {
        "dataset": "digits",
        "seed": 2,
        "tags": {"a": "1", "b": "3", "c": "4=5", "d": "6=7", "e": "8:9"},
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_reads_file_in_any_unicode_encoding(tmp_path, encoding):
    file = tmp_path / "job.json"
    file.write_bytes('{"tags": {"größe": "ñ"}}'.encode(encoding))
    assert body(str(file)) == {"tags": {"größe": "ñ"}}


def test_rejects_other_encoding(tmp_path):
    file = tmp_path / "job.json"
    file.write_bytes('{"tags": {"größe": "ñ"}}'.encode("latin-1"))
    with pytest.raises(typer.BadParameter, match="is not UTF-8; save it in that encoding"):
        body(str(file))


def test_dash_reads_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"seed": 7}')))
    assert body("-") == {"seed": 7}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": ["digits", "mlp"]}, "give DATASET MODEL OPTIMIZER, or FILE.json"),
        ({"source": ["nowhere.json"]}, "nowhere.json: No such file"),
        ({"params": ["lr"]}, "'lr' does not have the form PATH=VALUE"),
        ({"tags": ["=x"]}, "'=x' does not have the form KEY:VALUE"),
        ({"tags": ["x"]}, "'x' does not have the form KEY:VALUE"),
        ({"source": ["digits", "mlp", "adam"], "params": ["optimizer=ko"]}, "two arguments set 'optimizer'"),
        ({"source": ["digits", "mlp", "adam"], "params": ["optimizer.name=ko"]}, "two arguments set 'optimizer.name'"),
        ({"fields": {"optimizer.lr": 0.1}, "params": ["optimizer.lr=1"]}, "two arguments set 'optimizer.params.lr'"),
        ({"params": ["optimizer.gamma=1", "optimizer.params.gamma=2"]}, "two arguments set 'optimizer.params.gamma'"),
        ({"params": ["schedule.name=step", "schedule=cosine"]}, "two arguments set 'schedule'"),
        ({"params": ["target.value=1", "target=null"]}, "two arguments set 'target'"),
        ({"tags": ["a:b", "a:c"]}, "two arguments set 'tags.a'"),
        ({"params": ["seed=1", "seed.x=2"]}, "cannot set 'seed.x': 'seed' is not an object"),
    ],
)
def test_rejects_invalid_arguments(arguments, message):
    with pytest.raises(typer.BadParameter, match=message):
        request_body.build(**{"source": ["digits", "mlp", "ko"], "fields": {}, "params": [], "tags": [], **arguments})


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "is not a JSON object")])
def test_rejects_file_without_json_object(tmp_path, text, message):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(typer.BadParameter, match=message):
        body(str(tmp_path / "job.json"))


@pytest.mark.parametrize(
    ("path", "full"),
    [
        ("model.init_scale=0.1", "model.params.init_scale=0.1"),
        ("model.params.init_scale=0.1", "model.params.init_scale=0.1"),
        ("dataset.name=digits", "dataset.name=digits"),
        ("environment.torch=2.14.1", "environment.torch=2.14.1"),
    ],
)
def test_full_path_inserts_params(path, full):
    assert request_body.full_path(path) == full
