"""Models of libraries over HTTP: the catalog, how they are fitted to the data, what is refused before it is queued."""

import pytest

from service.storage import database
from service.storage.tables import Worker
from tests.integration.api_calls import JOB, problem
from tests.integration.comparisons.comparison_calls import REQUEST


def dry_run(api, **fields):
    return api.post("/v1/jobs", params={"dry_run": True}, json=JOB | fields)


def refusal(response):
    (error,) = problem(response, 422)["errors"]
    return error["pointer"], error["detail"]


@pytest.fixture
def workers(empty):
    """A function that registers a worker with GPUs of these sizes, in MiB."""

    def add(name, *gpus):
        devices = [{"kind": "cuda", "name": "small", "memory_bytes": mebibytes * 2**20} for mebibytes in gpus]
        with database.transaction() as session:
            session.add(Worker(id=name, host=name, slots=1, devices=devices or [{"kind": "cpu", "name": "c"}]))

    return add


def test_catalog_lists_libraries_and_their_models(api):
    listed = {library["name"]: library for library in api.get("/v1/catalog").json()["model_libraries"]}
    models = api.get("/v1/catalog/models/timm").json()["models"]
    assert listed["timm"]["models"] == sum(model["refusal"] is None for model in models) > 1000
    resnet = next(model for model in models if model["name"] == "timm/resnet18")
    detail = api.get("/v1/catalog/models/timm/resnet18").json()
    assert detail.items() >= resnet.items()
    assert (detail["parameters"], detail["smallest_side"], detail["head"]) == (11_689_512, 1, ["fc"])


def test_unknown_libraries_and_models_are_said_to_be_unknown(api):
    assert "torchvision" in problem(api.get("/v1/catalog/models/torchvison"), 404)["detail"]
    assert "torchvision" in problem(api.get("/v1/catalog/models/torchvison/resnet18"), 404)["detail"]
    assert "did you mean 'timm/resnet18'?" in problem(api.get("/v1/catalog/models/timm/resnet_18"), 404)["detail"]
    pointer, detail = refusal(dry_run(api, model="timm/resnet_18"))
    assert (pointer, "did you mean 'timm/resnet18'?" in detail) == ("/model/name", True)


def test_dry_run_shows_how_a_model_is_fitted(api):
    fitted = dry_run(api, model="timm/resnet18").json()["model"]
    assert fitted == {
        "parameters": 11_175_370,
        "least_memory_bytes": 4 * 4 * 11_175_370,
        "smallest_side": 1,
        "stem": "conv1: 1 channel instead of 3",
        "head": "fc: 10 classes instead of 1,000",
    }
    assert dry_run(api, model="mlp").json()["model"] is None


@pytest.mark.parametrize(
    ("fields", "pointer", "text"),
    [
        ({"model": "torchvision/alexnet"}, "/model", "takes images of at least 63 x 63 pixels; 'digits' has 8 x 8"),
        ({"model": "timm/vit_tiny_patch16_224"}, "/model", "takes images of at least 16 x 16 pixels"),
        ({"model": "timm/csatv2"}, "/model", "takes images with three channels only"),
        ({"model": {"name": "timm/resnet18", "params": {"depth": 3}}}, "/model/params/depth", "unknown field"),
        ({"model": "timm/resnet18", "batch_size": 1}, "/batch_size", "a single record, which the batch normalization"),
        ({"model": "timm/deepseek_vit_412m_enc"}, "/model/name", "cannot be used: it does not train"),
        ({"model": "timm/RESNET18"}, "/model/name", "did you mean 'timm/resnet18'?"),
        ({"model": "keras/resnet"}, "/model", "unknown model 'keras/resnet'"),
        ({"model": "resnet"}, "/model", "choose one of mlp, cnn, resnet18, resnet34, resnet50, textcnn, lstm, "),
        ({"model": "resnet"}, "/model", "transformer, or one of a library, such as timm/resnet18"),
        ({"model": "torchvision/resnet18", "dataset": "snips"}, "/model", "reads images"),
    ],
)
def test_what_does_not_fit_is_refused(api, fields, pointer, text):
    refused_at, detail = refusal(dry_run(api, **fields))
    assert refused_at == pointer
    assert text in detail


class TestMemory:
    """ResNet-18 takes 85 MiB of weights and gradients, with Adam 171 MiB."""

    def test_gpu_that_is_too_small(self, api, workers):
        workers("first", 128)
        workers("second", 64, 64)
        assert dry_run(api, model="timm/resnet18", optimizer="sgd", device="cuda").status_code == 200
        pointer, detail = refusal(dry_run(api, model="timm/resnet18", device="cuda"))
        assert pointer == "/model"
        assert "(11,175,370 parameters) need 171 MiB, but the largest GPU of the workers has 128 MiB" in detail
        assert refusal(dry_run(api, model="timm/resnet18"))[0] == "/model", "all workers have a GPU"
        assert dry_run(api, model="timm/resnet18", device="cpu").status_code == 200
        workers("without a GPU")
        assert dry_run(api, model="timm/resnet18").status_code == 200

    def test_limit_of_the_job(self, api):
        """It applies to host memory, where a GPU's job keeps none of them."""
        limit = {"memory_limit_bytes": 2**28, "device": "cpu"}
        assert dry_run(api, model="timm/resnet18", **limit).status_code == 200
        pointer, detail = refusal(dry_run(api, model="timm/resnet50", **limit))
        assert (pointer, "need 359 MiB, more than the limit of 256 MiB" in detail) == ("/memory_limit_bytes", True), (
            detail
        )
        assert dry_run(api, model="timm/resnet50", **limit | {"device": "auto"}).status_code == 200

    def test_of_a_comparison_is_that_of_its_largest_optimizer(self, api, workers):
        workers("small", 128)
        task = {"dataset": "digits", "model": "timm/resnet18", "budget": {"steps": 1}}
        request = {name: value for name, value in REQUEST.items() if name != "tuning"}
        request |= {"tasks": [task], "optimizers": ["sgd", "adam"]}
        pointer, detail = refusal(api.post("/v1/comparisons", params={"dry_run": True}, json=request))
        assert (pointer, "need 171 MiB" in detail) == ("/tasks/0/model", True), detail
        fitting = request | {"optimizers": ["sgd", {"label": "slow", "name": "sgd", "params": {"lr": 0.001}}]}
        assert api.post("/v1/comparisons", params={"dry_run": True}, json=fitting).status_code == 200
