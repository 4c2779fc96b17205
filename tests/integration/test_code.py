"""`/v1/code`: upload, list, show, compare and delete code."""

from collections import Counter
from datetime import timedelta
from hashlib import sha256

import pytest

from service.accounts import api_keys
from service.code import checks, isolation
from service.config import settings
from service.specs.catalog import uploaded
from tests.clients import client
from tests.integration.api_calls import problem
from tests.integration.comparisons.comparison_calls import LR, REQUEST
from tests.integration.job_calls import load
from workers import code_check

SOURCE = """
from torch.optim import SGD

class Mine(SGD):
    '''My method.'''
    def __init__(self, params, lr={}): ...
"""
JOB = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}}


def upload(api, name="mine", lr=0.1):
    answer = api.post(f"/v1/code?kind=optimizer&name={name}&file=my/mine.py", content=SOURCE.format(lr))
    assert answer.status_code in (200, 201), answer.text
    return answer


@pytest.fixture
def bob(empty):
    with client(api_keys.create("bob")) as bob:
        yield bob


def test_upload_is_a_version_that_stays(api, bob):
    first, again, second = upload(api), upload(api), upload(api, lr=0.2)
    assert [answer.status_code for answer in (first, again, second)] == [201, 200, 201]
    assert first.json() == again.json()
    name = first.json()["name"]
    assert first.headers["Location"] == f"/v1/code/{name}"
    assert name == f"ada/mine@{first.json()['sha256'][:8]}"
    assert (first.json()["title"], first.json()["file"], first.json()["source"]) == (
        "My method",
        "mine.py",
        SOURCE.format(0.1),
    )
    assert bob.get("/v1/code/ada/mine").json() == second.json(), "the newest, for everybody"
    assert [row["name"] for row in bob.get("/v1/code").json()["data"]] == [second.json()["name"], name]
    assert bob.get("/v1/code?owner=bob").json()["data"] == []
    page = bob.get("/v1/code?name=mine&limit=1").json()
    assert bob.get("/v1/code", params={"after": page["next"]}).json()["data"][0]["name"] == name
    assert "+    def __init__(self, params, lr=0.2)" in bob.get(f"/v1/code/ada/mine/diff?old={name}").json()["diff"]


def test_catalog_describes_it(api):
    name = upload(api).json()["name"]
    entry = api.get("/v1/catalog/optimizers/ada/mine").json()
    assert (entry["name"], entry["title"], entry["base_of"]) == (name, "My method", ["ko", "bimaxwell"])
    support = api.get("/v1/catalog").json()["code"]
    assert support["accepted"]
    assert "torch" in support["packages"]


def test_jobs_and_comparisons_record_the_newest_version(api):
    old, new = upload(api).json()["name"], upload(api, lr=0.2).json()["name"]
    job = api.post("/v1/jobs", json=JOB | {"optimizer": "ada/mine"}).json()
    assert job["spec"]["optimizer"] == {"name": new, "params": {"lr": 0.2}}
    job = api.post("/v1/jobs", json=JOB | {"optimizer": {"name": old, "params": {"lr": 0.3}}}).json()
    assert job["spec"]["optimizer"] == {"name": old, "params": {"lr": 0.3}}
    assert load(job["id"]).optimizer == old
    job = api.post("/v1/jobs", json=JOB | {"optimizer": {"name": "ko", "params": {"base": "ada/mine"}}}).json()
    assert job["spec"]["optimizer"]["params"]["base"] == new
    optimizers = [{"name": "ada/mine", "label": "new"}, {"name": old, "label": "old"}]
    comparison = api.post("/v1/comparisons", json=REQUEST | {"optimizers": optimizers, "tuning": None})
    assert comparison.status_code == 202, comparison.text
    planned = comparison.json()["plan"]["optimizers"]
    assert [optimizer["name"] for optimizer in planned] == [new, old]


def test_runs_of_the_same_version_are_reused_and_those_of_another_one_are_not(api):
    def planned(name):
        optimizers = ["adam", {"name": name, "label": "mine"}]
        answer = api.post("/v1/comparisons?dry_run=true", json=request | {"optimizers": optimizers}).json()
        return answer["reused"], answer["jobs_at_most"]

    request = REQUEST | {"seeds": 2, "tuning": None}
    first = upload(api).json()["name"]
    assert planned("ada/mine") == (0, 4)
    api.post("/v1/comparisons", json=request | {"optimizers": ["adam", {"name": "ada/mine", "label": "mine"}]})
    assert planned("ada/mine") == (4, 4)
    upload(api, lr=0.2)
    assert planned("ada/mine") == (2, 4), "those of adam"
    assert planned(first) == (4, 4)


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("wrapper", [None, "ko"])
def test_file_is_among_the_artifacts_of_jobs_that_use_it(api, bob, wrapper):
    content = BOM + SOURCE.format(0.1).encode()
    name = api.post("/v1/code?kind=optimizer&name=mine", content=content).json()["name"]
    optimizer = {"name": wrapper, "params": {"base": name}} if wrapper else name
    path = f"/v1/jobs/{api.post('/v1/jobs', json=JOB | {'optimizer': optimizer}).json()['id']}/artifacts"
    listed = {artifact["name"]: artifact for artifact in bob.get(path).json()["artifacts"]}
    file = listed["optimizer.py"]
    assert (file["kind"], file["version"], file["size_bytes"]) == ("code", name, len(content))
    assert file["sha256"] == sha256(content).hexdigest() == api.get(f"/v1/code/{name}").json()["sha256"]
    answer = bob.get(f"{path}/optimizer.py")
    assert "accept-ranges" not in answer.headers
    assert (answer.content, answer.headers["Content-Type"]) == (content, "text/x-python; charset=utf-8")
    assert answer.headers["Content-Disposition"].startswith("attachment;")


def test_jobs_without_uploaded_code_have_no_source(api):
    path = f"/v1/jobs/{api.post('/v1/jobs', json=JOB | {'optimizer': 'adam'}).json()['id']}/artifacts"
    assert [artifact["name"] for artifact in api.get(path).json()["artifacts"]] == ["spec.json"]
    problem(api.get(f"{path}/optimizer.py"), 404)


@pytest.mark.parametrize("format", ["html", "latex"])
def test_reports_end_with_the_source_of_each_version(api, bob, format):
    used, base, unused = (upload(api, name, lr).json() for name, lr in (("mine", 0.1), ("other", 0.2), ("mine", 0.3)))
    optimizers = [used["name"], {"name": "ko", "params": {"base": "ada/other"}}]
    request = REQUEST | {"seeds": 2, "tuning": None, "optimizers": optimizers}
    id_ = api.post("/v1/comparisons", json=request).json()["id"]
    appendix = bob.get(f"/v1/comparisons/{id_}/report?format={format}").text.rpartition("Source of uploaded code")[2]
    for version, lr in ((used, "lr=0.1"), (base, "lr=0.2")):
        assert version["name"] in appendix
        assert version["sha256"][:32] in appendix
        assert lr in appendix
    assert unused["sha256"][:32] not in appendix


@pytest.mark.parametrize(
    ("optimizer", "pointer", "detail"),
    [
        ("ada/other", "/optimizer", "unknown optimizer 'ada/other'; GET /v1/code lists"),
        ("ada/mine@00000000", "/optimizer", "unknown optimizer 'ada/mine@00000000'"),
        ({"name": "ko", "params": {"base": "ada/other"}}, "/optimizer/params/base", "unknown optimizer 'ada/other'"),
        ({"name": "ada/mine", "params": {"lr": 0}}, "/optimizer/params/lr", "greater than 0"),
        ({"name": "ada/mine", "params": {"eps": 1}}, "/optimizer/params/eps", "unknown field"),
    ],
)
def test_invalid_use_names_the_field(api, optimizer, pointer, detail):
    upload(api)
    errors = problem(api.post("/v1/jobs", json=JOB | {"optimizer": optimizer}), 422)["errors"]
    assert [error["pointer"].removesuffix("/name") for error in errors] == [pointer]
    assert detail in errors[0]["detail"]


@pytest.mark.parametrize(
    ("wrapper", "names", "other"),
    [("ko", ["gamma", "rate"], "bimaxwell"), ("bimaxwell", ["slow"], "ko")],
)
def test_base_with_the_names_of_its_wrappers_parameters_is_refused(api, wrapper, names, other):
    parameters = ", ".join(["lr=0.1", *(f"{name}=0.5" for name in names)])
    name = api.post("/v1/code?kind=optimizer&name=mine", content=SOURCE.replace("lr={}", parameters)).json()["name"]
    assert api.get("/v1/catalog/optimizers/ada/mine").json()["base_of"] == [other]
    on_base = {"params": {"base": "ada/mine"}}
    (error,) = problem(api.post("/v1/jobs", json=JOB | {"optimizer": {"name": wrapper} | on_base}), 422)["errors"]
    assert error["pointer"] == "/optimizer/params/base"
    assert error["detail"].startswith(f"{name} cannot be the base of {wrapper}, which has parameter")
    assert f" {' and '.join(names)} of its own: rename " in error["detail"]
    assert api.post("/v1/jobs", json=JOB | {"optimizer": {"name": other} | on_base}).status_code == 202
    assert api.post("/v1/jobs", json=JOB | {"optimizer": "ada/mine"}).status_code == 202


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ("kind=optimizer&name=Mine", 422, "must be 1 to 30 lower-case letters"),
        ("kind=model&name=mine", 422, "optimizer"),
        ("kind=optimizer&name=random", 422, "'random' is the name of a module"),
        ("kind=optimizer&name=workers", 422, "'workers' is the name of a module"),
        ("kind=optimizer", 422, "required"),
    ],
)
def test_invalid_upload_is_refused(api, query, status, detail):
    assert detail in problem(api.post(f"/v1/code?{query}", content=SOURCE.format(0.1)), status)["detail"]


@pytest.mark.parametrize("name", ["torch", "timm", "a b", "x" * 25])
def test_users_whose_name_cannot_begin_that_of_code_are_refused(empty, name):
    with client(api_keys.create(name)) as user:
        answer = user.post("/v1/code?kind=optimizer&name=mine", content=SOURCE.format(0.1))
    assert f"the user name '{name}' cannot be used" in problem(answer, 422)["detail"]


def test_only_unused_versions_of_ones_own_are_deleted(api, bob):
    used, unused = upload(api).json()["name"], upload(api, lr=0.2).json()["name"]
    api.post("/v1/jobs", json=JOB | {"optimizer": used})
    assert "belongs to ada" in problem(bob.delete(f"/v1/code/{unused}"), 403)["detail"]
    assert "is used by 1 job" in problem(api.delete(f"/v1/code/{used}"), 409)["detail"]
    assert "name the version to delete" in problem(api.delete("/v1/code/ada/mine"), 404)["detail"]
    assert api.delete(f"/v1/code/{unused}").status_code == 204
    problem(api.get(f"/v1/code/{unused}"), 404)


@pytest.mark.parametrize("dry_run", ["", "?dry_run=true"])
def test_deleted_versions_are_refused_although_their_declarations_are_in_memory(api, dry_run):
    deleted, kept = upload(api).json()["name"], upload(api, lr=0.2).json()["name"]
    assert api.post("/v1/jobs?dry_run=true", json=JOB | {"optimizer": deleted}).status_code == 200
    assert api.delete(f"/v1/code/{deleted}").status_code == 204
    assert uploaded.declaration(deleted).name == deleted, "as in a process that did not serve the deletion"
    on_base = {"name": "ko", "params": {"base": deleted}}
    tuned = {"name": "ko", "params": {}, "space": {"base": {"choice": [kept, deleted]}}}
    for optimizer in (deleted, on_base):
        answer = api.post(f"/v1/jobs{dry_run}", json=JOB | {"optimizer": optimizer})
        assert f"'{deleted}' has been deleted" in problem(answer, 422)["detail"]
    for optimizer in ({"name": deleted}, on_base, tuned):
        request = REQUEST | {"optimizers": [{"name": "adam", "space": LR}, optimizer | {"label": "mine"}]}
        (error,) = problem(api.post(f"/v1/comparisons{dry_run}", json=request), 422)["errors"]
        assert (error["pointer"], error["detail"]) == ("/optimizers/1", f"uploaded code '{deleted}' has been deleted")


@pytest.mark.parametrize(
    ("mode", "missing", "runs"),
    [
        ("off", None, "not accepted: KOTRAIN_UPLOADED_CODE is off"),
        ("confined", "unshare", "this machine cannot isolate it (unshare)"),
    ],
)
def test_a_server_may_accept_no_code(api, monkeypatch, mode, missing, runs):
    monkeypatch.setenv("KOTRAIN_UPLOADED_CODE", mode)
    monkeypatch.setattr(isolation, "missing", lambda: missing)
    settings.cache_clear()
    try:
        answer = api.post("/v1/code?kind=optimizer&name=mine", content=SOURCE.format(0.1))
        assert runs in problem(answer, 403)["detail"]
        assert not api.get("/v1/catalog").json()["code"]["accepted"]
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_conformance_test_is_repeated_a_few_times_after_trouble_of_the_machine(api, monkeypatch):
    def run(code, host):
        raise OSError("no space")

    monkeypatch.setattr(code_check, "_run", run)
    monkeypatch.setattr(checks, "RETRY", timedelta(0))
    name = upload(api).json()["name"]
    troubles = Counter()
    for _ in range(code_check.MAX_TROUBLES - 1):
        assert code_check.check_one(None, troubles)
        assert api.get(f"/v1/code/{name}").json()["checks"] is None
    assert code_check.check_one(None, troubles)
    (check,) = api.get(f"/v1/code/{name}").json()["checks"]
    assert (check["outcome"], check["text"]) == ("fail", "the test was ended 3 times: no space")
    assert not code_check.check_one(None, troubles)
