"""The API over HTTP: status codes, headers and problem documents of each route."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.accounts import api_keys
from service.errors import Invalid
from service.jobs.requests import JOB_EXAMPLE
from service.storage import database
from service.storage.tables import Worker
from tests.integration.api_calls import JOB, problem, stored_jobs
from tests.waiting import until


class TestSubmit:
    def test_returns_202_with_location_and_resolved_spec(self, api):
        response = api.post("/v1/jobs", json=JOB_EXAMPLE)
        assert response.status_code == 202
        job = response.json()
        assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
        assert job["status"] == "queued"
        assert job["user"] == "ada"
        assert job["tags"] == {"study": "first"}
        assert job["spec"]["optimizer"]["params"]["betas"] == [0.9, 0.999]
        assert job["optimizer_label"] == "ko soft (adam)"
        assert job["spec"]["dataset"] == {
            "name": "digits",
            "params": {"split_seed": 0, "limit": None, "split": "seeded"},
        }
        assert job["created_at"].endswith("Z")
        assert api.get(response.headers["Location"]).json() == job

    def test_dry_run_creates_no_job(self, api):
        response = api.post("/v1/jobs?dry_run=true", json=JOB)
        assert response.status_code == 200
        assert response.json()["spec"]["optimizer"]["params"]["lr"] == 1e-3
        assert response.json()["warnings"] == []
        warm = {"schedule": {"name": "constant", "params": {"warmup_steps": 10**6}}}
        (warning,) = api.post("/v1/jobs?dry_run=true", json=JOB | warm).json()["warnings"]
        assert warning.startswith("The warm-up takes 1,000,000 steps, but the run ends after ")
        assert stored_jobs() == 0

    @pytest.mark.parametrize(
        ("change", "pointer", "detail"),
        [
            (
                {"dataset": "digit"},
                "/dataset",
                "unknown dataset 'digit' (did you mean 'digits'?); choose one of digits, mnist",
            ),
            ({"dataset": {"name": "digit"}}, "/dataset/name", "did you mean 'digits'"),
            ({"dataset": {"name": "digits", "params": {"splt": 1}}}, "/dataset/params/splt", "unknown field"),
            ({"dataset": 3}, "/dataset", "give the dataset as a name, or as an object"),
            ({"model": {}}, "/model/name", "give the model as a name"),
            ({"model": {"name": "mlp", "params": {"hidden": [0]}}}, "/model/params/hidden/0", "greater than or equal"),
            ({"model": {"name": "mlp", "params": {"hidden": "x"}}}, "/model/params/hidden", "should be a list"),
            ({"model": "textcnn"}, "/model", "model 'textcnn' reads texts, but data set 'digits' has images"),
            ({"optimizer": "adm"}, "/optimizer", "did you mean 'adam'"),
            (
                {"optimizer": {"name": "ko", "params": {"base": "adm"}}},
                "/optimizer/params/base",
                "unknown base optimizer",
            ),
            ({"optimizer": {"name": "ko", "params": {"gama": 1}}}, "/optimizer/params/gama", "unknown field"),
            (
                {"optimizer": {"name": "ko", "params": {"group_size": 1}}},
                "/optimizer/params/group_size",
                "greater than or equal to 2",
            ),
            (
                {"optimizer": {"name": "ko", "params": {"base": "sgd", "fade": "x"}}},
                "/optimizer/params/fade",
                "'none', 'cosine' or 'linear'",
            ),
            ({"diagnostics_every_steps": 0}, "/diagnostics_every_steps", "greater than or equal to 1"),
            ({"optimizer": {"name": "adam", "params": {"lr": "1"}}}, "/optimizer/params/lr", "valid number"),
            ({"optimizer": {"name": "adam", "params": {"lr": True}}}, "/optimizer/params/lr", "valid number"),
            ({"optimizer": {"name": "adam", "params": {"lr": -1}}}, "/optimizer/params/lr", "greater than 0"),
            (
                {"optimizer": {"name": "adam", "params": {"lr": 1e9}}},
                "/optimizer/params/lr",
                "less than or equal to 100",
            ),
            ({"optimizer": {"name": "adam", "params": {"lr": float("nan")}}}, "/optimizer/params/lr", "finite"),
            ({"optimizer": {"name": "adam", "params": {"lr": float("inf")}}}, "/optimizer/params/lr", "finite"),
            ({"budget": {"epochs": 0}}, "/budget/epochs", "greater than or equal to 1"),
            ({"budget": {"epochs": 1.5}}, "/budget/epochs", "integer"),
            ({"budget": {}}, "/budget", "give exactly one of epochs, steps and seconds"),
            ({"budget": {"epochs": 1, "steps": 1}}, "/budget", "give exactly one of epochs, steps and seconds"),
            ({"stop_at_target": True}, "/stop_at_target", "requires a target"),
            (
                {"optimizer": {"name": "sgd", "params": {"momentum": 0, "nesterov": True}}},
                "/optimizer/params/nesterov",
                "needs a momentum",
            ),
            ({"batch_size": 801}, "/batch_size", "801 exceeds the 800 training records of 'digits'"),
            (
                {"model": "resnet18", "batch_size": 799},  # the default budget is one epoch or more
                "/batch_size",
                "the last of 800 training records is a single record, which the batch normalization of resnet18",
            ),
            ({"model": "resnet50", "batch_size": 1}, "/batch_size", "choose 2"),
            ({"model": "resnet34", "batch_size": 799}, "/batch_size", "choose 798 or 800"),
            ({"batch_size": 0}, "/batch_size", "greater than or equal to 1"),
            ({"batch_size": 10**400}, "/batch_size", ""),
            ({"seed": -1}, "/seed", "greater than or equal to 0"),
            ({"seed": 2**70}, "/seed", "less than or equal"),
            ({"precision": "fp8"}, "/precision", "'fp32', 'bf16' or 'fp16'"),
            ({"precision": "fp16", "device": "cpu"}, "/precision", "precision fp16 requires a GPU"),
            ({"tags": {"a\u0000": "b"}}, "/tags/a\u0000", "a tag's key must be"),
            ({"tags": {"a": 1}}, "/tags/a", "valid string"),
            ({"tags": {"a:b": "c"}}, "/tags/a:b", "a tag's key must be"),
            ({"surprise": 1}, "/surprise", "unknown field"),
            ({"dataset": "mnist"}, "/dataset", "kotrain data fetch mnist"),
        ],
    )
    def test_invalid_input_names_the_field_and_creates_no_job(self, api, change, pointer, detail):
        body = json.dumps(JOB | change)
        document = problem(api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}), 422)
        assert [error["pointer"] for error in document["errors"]] == [pointer]
        assert detail in document["errors"][0]["detail"]
        assert stored_jobs() == 0

    def test_misspelt_dry_run_submits_nothing(self, api):
        document = problem(api.post("/v1/jobs?dryrun=true", json=JOB), 422)
        assert document["errors"] == [{"pointer": "dryrun", "detail": "unknown field"}]
        assert stored_jobs() == 0

    def test_error_lists_all_missing_fields(self, api):
        document = problem(api.post("/v1/jobs", json={"dataset": "digits"}), 422)
        assert {error["pointer"] for error in document["errors"]} == {"/model", "/optimizer", "/budget"}

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"x"', b"null", b"[]"])
    def test_malformed_bodies_return_4xx(self, api, body):
        response = api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422)
        assert response.headers["content-type"] == "application/problem+json"
        assert stored_jobs() == 0

    @pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
    def test_other_content_types_return_415(self, api, kind):
        headers = {"Content-Type": kind} if kind else {}
        document = problem(api.post("/v1/jobs", content=json.dumps(JOB), headers=headers), 415)
        assert "Content-Type: application/json" in document["detail"]
        assert stored_jobs() == 0

    def test_huge_body_is_refused_unread(self, api):
        problem(api.post("/v1/jobs", content=b" " * 50_000_000), 413)

        def unannounced():
            for _ in range(50):
                yield b" " * 1_000_000

        problem(api.post("/v1/jobs", content=unannounced()), 413)

    def test_gpu_job_without_gpu_worker_is_refused(self, api):
        with database.transaction() as session:
            session.add(worker := _worker("cpu"))
        document = problem(api.post("/v1/jobs", json=JOB | {"device": "cuda"}), 422)
        assert document["errors"][0]["pointer"] == "/device"
        with database.transaction() as session:
            session.delete(session.merge(worker))
            session.add(_worker("cuda"))
        assert api.post("/v1/jobs", json=JOB | {"device": "cuda"}).status_code == 202


def _worker(kind):
    return Worker(id=kind, host="lab", slots=1, devices=[{"kind": kind, "name": "", "memory_bytes": 0}])


class TestIdempotencyKey:
    def test_repeated_key_returns_the_stored_response(self, api):
        headers = {"Idempotency-Key": "one"}
        first = api.post("/v1/jobs", json=JOB, headers=headers)
        second = api.post("/v1/jobs", json=JOB | {"seed": 0}, headers=headers)
        assert second.status_code == 202
        assert second.content == first.content
        assert second.headers["Location"] == first.headers["Location"]
        assert stored_jobs() == 1

    def test_same_key_with_different_body_is_refused(self, api):
        api.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"})
        problem(api.post("/v1/jobs", json=JOB | {"seed": 1}, headers={"Idempotency-Key": "one"}), 422)
        assert stored_jobs() == 1

    def test_keys_are_scoped_to_the_user(self, api):
        other = {"Authorization": f"Bearer {api_keys.create('bob')}"}
        first = api.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"})
        second = api.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"} | other)
        assert first.json()["id"] != second.json()["id"]

    def test_concurrent_requests_create_one_job(self, api):
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: api.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"}), range(16))
            )
        assert {answer.status_code for answer in answers} <= {202, 409}
        assert stored_jobs() == 1


class TestList:
    def test_pages_from_newest_to_oldest(self, api):
        ids = [api.post("/v1/jobs", json=JOB | {"seed": seed}).json()["id"] for seed in range(5)]
        seen, after = [], None
        while True:
            page = api.get("/v1/jobs", params={"limit": 2} | ({"after": after} if after else {})).json()
            seen += [job["id"] for job in page["data"]]
            after = page["next"]
            if not page["has_more"]:
                break
        assert seen == ids[::-1]
        assert after is None

    def test_filters_by_each_field(self, api):
        api.post("/v1/jobs", json=JOB | {"tags": {"study": "a"}})
        api.post("/v1/jobs", json=JOB | {"optimizer": "sgd"})
        for query in ({"tag": "study:a"}, {"optimizer": "sgd"}):
            assert len(api.get("/v1/jobs", params=query).json()["data"]) == 1
        for query in ({"status": "queued"}, {"user": "ada"}, {"dataset": "digits"}, {"model": "mlp"}):
            assert len(api.get("/v1/jobs", params=query).json()["data"]) == 2
        assert api.get("/v1/jobs", params={"user": "bob"}).json() == {"data": [], "has_more": False, "next": None}

    @pytest.mark.parametrize(
        ("query", "pointer"),
        [
            ({"after": "nonsense"}, "after"),
            ({"after": "é"}, "after"),
            ({"after": "A" * 22}, "after"),
            ({"limit": 0}, "limit"),
            ({"limit": 501}, "limit"),
            ({"status": "runing"}, "status"),
            ({"statu": "queued"}, "statu"),
            ({"user": "\x00"}, "user"),
            ({"tag": "study"}, "tag"),
        ],
    )
    def test_invalid_queries_are_refused(self, api, query, pointer):
        assert [error["pointer"] for error in problem(api.get("/v1/jobs", params=query), 422)["errors"]] == [pointer]


class TestShow:
    def test_unchanged_job_returns_304(self, api):
        url = api.post("/v1/jobs", json=JOB).headers["Location"]
        etag = api.get(url).headers["ETag"]
        assert api.get(url, headers={"If-None-Match": etag}).status_code == 304
        api.post(url + "/cancel")
        assert api.get(url, headers={"If-None-Match": etag}).status_code == 200

    def test_unknown_jobs_and_paths_return_404(self, api):
        problem(api.get("/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057"), 404)
        problem(api.get("/v1/jobs/seven"), 422)
        problem(api.get("/v1/nothing"), 404)

    def test_metrics_of_a_job_without_points(self, api):
        url = api.post("/v1/jobs", json=JOB).headers["Location"]
        assert api.get(url + "/metrics").json() == {"metrics": {}}
        problem(api.get(url + "/metrics?max_points=1"), 422)


class TestCompare:
    @pytest.mark.parametrize("metric", ["{x", "\\", "}", '"', ",", "a b", "%", ":x"])
    def test_unknown_metric_never_returns_500(self, api, metric):
        query = {"dataset": "digits", "model": "mlp", "metric": metric}
        assert api.get("/v1/compare", params=query).status_code in (200, 422)

    @pytest.mark.parametrize("where", ["environment=1", "model..x=1", "model.=1", "{=1"])
    def test_invalid_path_is_refused(self, api, where):
        query = {"dataset": "digits", "model": "mlp", "where": where}
        problem(api.get("/v1/compare", params=query), 422)


class TestCancelAndRetry:
    def test_cancel_is_idempotent(self, api):
        url = api.post("/v1/jobs", json=JOB).headers["Location"]
        for _ in range(2):
            response = api.post(url + "/cancel")
            assert response.status_code == 202
            assert response.json()["status"] == "cancelled"
            assert response.json()["finished_at"]

    def test_job_of_another_user_is_forbidden(self, api):
        url = api.post("/v1/jobs", json=JOB).headers["Location"]
        bob, admin = api_keys.create("bob"), api_keys.create("root", admin=True)
        problem(api.post(url + "/cancel", headers={"Authorization": f"Bearer {bob}"}), 403)
        assert api.post(url + "/cancel", headers={"Authorization": f"Bearer {admin}"}).status_code == 202

    def test_repeated_retry_returns_the_same_job(self, api):
        job = api.post("/v1/jobs", json=JOB).json()
        document = problem(api.post(f"/v1/jobs/{job['id']}/retry"), 409)
        assert document["current_status"] == "queued"
        api.post(f"/v1/jobs/{job['id']}/cancel")
        first, second = (api.post(f"/v1/jobs/{job['id']}/retry").json() for _ in range(2))
        assert first == second
        assert first["retry_of"] == job["id"]
        assert first["spec"] == job["spec"]
        assert first["status"] == "queued"


class TestKeys:
    @pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic x"}])
    def test_requests_without_valid_key_return_401(self, api, header):
        del api.headers["Authorization"]
        for path in ("/v1/jobs", "/v1/catalog", "/v1/compare?dataset=digits&model=mlp"):
            response = api.get(path, headers=header)
            problem(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        problem(api.post("/v1/jobs", json=JOB, headers=header), 401)

    @pytest.mark.parametrize("name", ["", "a" * 65, "a\n", "a\0"])
    def test_invalid_user_names_are_refused(self, empty, name):
        with pytest.raises(Invalid, match="invalid user name"):
            api_keys.create(name)


class TestOperations:
    def test_health_and_readiness_need_no_key(self, api):
        del api.headers["Authorization"]
        assert api.get("/healthz").json() == {"status": "ok"}
        until(lambda: api.get("/readyz").json() == {"status": "ok", "database": "up", "broker": "up"})

    def test_valid_request_id_is_returned_and_others_are_replaced(self, api):
        assert api.get("/healthz", headers={"X-Request-ID": "mine"}).headers["X-Request-ID"] == "mine"
        assert len(api.get("/nothing", headers={"X-Request-ID": "no good\t"}).headers["X-Request-ID"]) == 36

    def test_unexpected_errors_are_logged_with_the_request_id(self, api, monkeypatch, caplog):
        def broken(*_):
            raise RuntimeError("a defect")

        monkeypatch.setattr("service.jobs.lookup.get", broken)
        response = api.get("/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057", headers={"X-Request-ID": "mine"})
        problem(response, 500)
        assert response.headers["X-Request-ID"] == "mine"
        assert "request mine, GET /v1/jobs/" in caplog.text
        assert "defect" not in response.text

    def test_openapi_has_examples_and_problems(self, api):
        document = api.get("/openapi.json").json()
        body = document["components"]["schemas"]["JobRequest"]
        assert body["examples"] == [JOB_EXAMPLE]
        assert "Problem" in document["components"]["schemas"]

    def test_catalog_lists_data_sets_and_parameters(self, api):
        catalog = api.get("/v1/catalog").json()
        datasets = {entry["name"]: entry for entry in catalog["datasets"]}
        assert datasets["digits"]["present"]
        assert datasets["mnist"]["fetch"] == "kotrain data fetch mnist"
        ko = next(entry for entry in catalog["optimizers"] if entry["name"] == "ko")
        assert "gamma" in json.dumps(ko["params"])
