"""Figures of comparisons and jobs, as files from their address."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import UUID, uuid4

import httpx2
import pytest

from service.metrics import write
from service.storage import database
from service.web.figure_queue import FIGURES
from tests.integration.at_work import do, submit
from tests.integration.comparisons.asking import REQUEST, ask, job_ids, work
from tests.integration.comparisons.conftest import worker  # noqa: F401 (a fixture)
from tests.integration.streams.conftest import server  # noqa: F401 (a fixture)
from tests.integration.test_api import problem
from tests.waiting import until

TASKS = [REQUEST["tasks"][0], {**REQUEST["tasks"][0], "label": "short", "budget": {"epochs": 1}}]


@pytest.fixture
def ended(api, worker):  # noqa: F811
    """Two tasks, all of whose final runs have a curve."""
    started = ask(api, tasks=TASKS)
    work()
    curves = {"val_accuracy": ([10, 20, 39], [0.5, 0.7, 0.9], [0.1, 0.2, 0.4])}
    do(write.append, [(job, curves) for job in job_ids(started, "report")])
    return started["id"]


class TestComparisonPlots:
    def test_all_plots_are_listed_and_drawn(self, api, ended):
        listed = api.get(f"/v1/comparisons/{ended}/plots").json()["plots"]
        names = [one["name"] for one in listed if one["task"] == "short"]
        assert names[:2] == ["curves", "time"]
        assert {one["name"] for one in listed if one["task"] is None} == {"ranks", "iqm", "improvements", "profiles"}
        drawn = {}
        for name in [*names, "ranks", "iqm"]:
            response = api.get(f"/v1/comparisons/{ended}/plots/{name}.svg")
            drawn[name] = response.status_code
            assert response.headers["content-type"] == (
                "image/svg+xml" if response.status_code == 200 else "application/problem+json"
            )
        assert {name for name, status in drawn.items() if status != 200} == {"loss", "condensation", "time_to_target"}
        assert set(drawn.values()) == {200, 409}

    def test_headers(self, api, ended):
        response = api.get(f"/v1/comparisons/{ended}/plots/curves.png?width=400&theme=dark")
        assert (response.headers["content-type"], response.status_code) == ("image/png", 200)
        assert response.headers["content-disposition"] == f'inline; filename="test-{ended[-8:]}-curves.png"'
        assert (
            response.headers["content-security-policy"]
            == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        )
        assert response.headers["x-content-type-options"] == "nosniff"
        assert int.from_bytes(response.content[16:20], "big") == 400

    def test_task_by_number_or_label(self, api, ended):
        get = [api.get(f"/v1/comparisons/{ended}/plots/endpoints.svg", params={"task": one}) for one in ("2", "short")]
        assert get[0].content == get[1].content
        assert get[0].content != api.get(f"/v1/comparisons/{ended}/plots/endpoints.svg").content
        (error,) = problem(api.get(f"/v1/comparisons/{ended}/plots/curves.svg?task=3"), 422)["errors"]
        assert error == {
            "pointer": "task",
            "detail": "unknown task; choose one of 1 (digits mlp epochs=3), 2 (short)",
        }

    def test_missing_data_returns_409_with_a_reason(self, api, ended):
        detail = problem(api.get(f"/v1/comparisons/{ended}/plots/loss.svg"), 409)["detail"]
        assert detail == "Training loss by step: no run has this curve, or it is no longer stored"
        started = ask(api, tasks=[{**TASKS[0], "budget": {"epochs": 2}}])
        detail = problem(api.get(f"/v1/comparisons/{started['id']}/plots/endpoints.png"), 409)["detail"]
        assert detail.endswith("no final run has a result yet")

    @pytest.mark.parametrize(
        ("path", "status", "said"),
        [
            ("nothing.svg", 404, "choose one of curves, time, endpoints"),
            ("curves.pdf", 404, "choose a name that ends in .svg or .png"),
            ("curves", 404, "choose a name that ends in .svg or .png"),
            (".svg", 404, "choose a name that ends in .svg or .png"),
            ("curves.png?width=319", 422, "320"),
            ("curves.png?width=4001", 422, "4000"),
            ("curves.png?theme=blue", 422, "'light' or 'dark'"),
            ("curves.png?smooth=0.5", 422, "unknown field"),
        ],
    )
    @pytest.mark.usefixtures("worker")
    def test_invalid_requests_name_the_field(self, api, path, status, said):
        started = ask(api)["id"]
        assert said in problem(api.get(f"/v1/comparisons/{started}/plots/{path}"), status)["detail"]

    def test_unknown(self, api):
        for path in ("", "/curves.svg"):
            problem(api.get(f"/v1/comparisons/{uuid4()}/plots{path}"), 404)


class TestJobPlots:
    @pytest.fixture
    def job(self, api) -> UUID:
        job_id = submit(optimizer="ko")
        values = [2.0, 1.0, float("nan")]
        names = ("train_loss", "val_loss", "lambda_max", "lambda_max/1.weight")
        do(write.append, [(job_id, {name: ([1, 2, 3], values, [0.1, 0.2, 0.3]) for name in names})])
        return job_id

    def test_all_plots_are_listed_and_drawn(self, api, job):
        names = [one["name"] for one in api.get(f"/v1/jobs/{job}/plots").json()["plots"]]
        assert names == ["loss", "diagnostics", "lambda_max", "lambda_max/1.weight", "train_loss", "val_loss"]
        for name in names:
            for ending, query in (("svg", {"theme": "dark"}), ("png", {"log": True, "smooth": 0.5, "width": 320})):
                response = api.get(f"/v1/jobs/{job}/plots/{name}.{ending}", params=query)
                assert response.status_code == 200, response.text
        disposition = response.headers["content-disposition"]
        assert disposition == f'inline; filename="job-{str(job)[-8:]}-val_loss.png"'

    @pytest.mark.parametrize(
        ("path", "status", "said"),
        [
            ("accuracy.svg", 404, "unknown plot 'accuracy'; choose one of loss, diagnostics"),
            ("loss.gif", 404, "choose a name that ends in .svg or .png"),
            ("loss.svg?smooth=1", 422, "0.99"),
            ("loss.svg?task=1", 422, "unknown field"),
        ],
    )
    def test_invalid_requests_name_the_field(self, api, job, path, status, said):
        assert said in problem(api.get(f"/v1/jobs/{job}/plots/{path}"), status)["detail"]

    def test_job_without_points_has_no_plots(self, api):
        waits = submit()
        assert api.get(f"/v1/jobs/{waits}/plots").json() == {"plots": []}
        assert "none is available yet" in problem(api.get(f"/v1/jobs/{waits}/plots/loss.svg"), 404)["detail"]
        problem(api.get(f"/v1/jobs/{uuid4()}/plots/loss.svg"), 404)


class TestQueue:
    @pytest.fixture
    def waiting(self):
        """The thread that draws does nothing until the test is over, or says so."""
        go_on = Event()
        FIGURES.submit(go_on.wait)
        yield go_on
        go_on.set()

    def test_figures_do_not_block_other_requests(self, key, server, waiting):  # noqa: F811
        """45 are asked for: more than threads, and than turns. The page is drawn by the same thread."""
        job = submit()
        do(write.append, [(job, {"loss": ([1, 2], [2.0, 1.0], [0.1, 0.2])})])
        limits = httpx2.Limits(max_connections=60)
        with (
            httpx2.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {key}"}, limits=limits, timeout=60
            ) as client,
            ThreadPoolExecutor(45) as crowd,
        ):
            asked = [crowd.submit(client.get, f"/v1/jobs/{job}/plots/loss.png") for _ in range(45)]
            until(lambda: sum(one.done() for one in asked) == 45 - FIGURES.max_waiting)
            assert client.get("/v1/me", timeout=5).status_code == 200
            assert database.engine().pool.checkedout() == 0
            refused = client.get(f"/v1/comparisons/{uuid4()}/report")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert client.get(f"/v1/comparisons/{uuid4()}/report?format=csv").status_code == 404
            waiting.set()
            statuses = [one.result().status_code for one in asked]
        assert sorted(statuses) == [200] * FIGURES.max_waiting + [503] * (45 - FIGURES.max_waiting)
