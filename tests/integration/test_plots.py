"""Figures of comparisons and jobs over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import UUID, uuid4

import httpx2
import pytest

from service.metrics import write
from service.storage import database
from service.web.figure_queue import FIGURES
from tests.integration.comparisons.comparison_calls import REQUEST, finish_all, job_ids, start
from tests.integration.comparisons.conftest import worker  # noqa: F401 (a fixture)
from tests.integration.job_calls import do, submit
from tests.integration.streams.conftest import server  # noqa: F401 (a fixture)
from tests.integration.test_api import problem
from tests.waiting import until

TASKS = [REQUEST["tasks"][0], {**REQUEST["tasks"][0], "label": "short", "budget": {"epochs": 1}}]


@pytest.fixture
def ended(api, worker):  # noqa: F811
    """A finished comparison of two tasks; all its final runs have a curve."""
    started = start(api, tasks=TASKS)
    finish_all()
    curves = {"val_accuracy": ([10, 20, 39], [0.5, 0.7, 0.9], [0.1, 0.2, 0.4])}
    do(write.append, [(job, curves) for job in job_ids(started, "report")])
    return started["id"]


class TestComparisonPlots:
    def test_all_plots_are_listed_and_drawn(self, api, ended):
        listed = api.get(f"/v1/comparisons/{ended}/plots").json()["plots"]
        names = [plot["name"] for plot in listed if plot["task"] == "short"]
        assert names[:2] == ["curves", "time"]
        assert {plot["name"] for plot in listed if plot["task"] is None} == {"ranks", "iqm", "improvements", "profiles"}
        statuses = {}
        for name in [*names, "ranks", "iqm"]:
            response = api.get(f"/v1/comparisons/{ended}/plots/{name}.svg")
            statuses[name] = response.status_code
            assert response.headers["content-type"] == (
                "image/svg+xml" if response.status_code == 200 else "application/problem+json"
            )
        assert {name for name, status in statuses.items() if status != 200} == {
            "loss",
            "condensation",
            "time_to_target",
        }
        assert set(statuses.values()) == {200, 409}

    def test_response_has_type_file_name_and_policy(self, api, ended):
        response = api.get(f"/v1/comparisons/{ended}/plots/curves.png?width=400&theme=dark")
        assert (response.headers["content-type"], response.status_code) == ("image/png", 200)
        assert response.headers["content-disposition"] == f'inline; filename="test-{ended[-8:]}-curves.png"'
        assert (
            response.headers["content-security-policy"]
            == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        )
        assert response.headers["x-content-type-options"] == "nosniff"
        assert int.from_bytes(response.content[16:20], "big") == 400

    def test_task_is_given_by_number_or_label(self, api, ended):
        plots = [
            api.get(f"/v1/comparisons/{ended}/plots/endpoints.svg", params={"task": task}) for task in ("2", "short")
        ]
        assert plots[0].content == plots[1].content
        assert plots[0].content != api.get(f"/v1/comparisons/{ended}/plots/endpoints.svg").content
        (error,) = problem(api.get(f"/v1/comparisons/{ended}/plots/curves.svg?task=3"), 422)["errors"]
        assert error == {
            "pointer": "task",
            "detail": "unknown task; choose one of 1 (digits mlp epochs=3), 2 (short)",
        }

    def test_missing_data_returns_409_with_a_reason(self, api, ended):
        detail = problem(api.get(f"/v1/comparisons/{ended}/plots/loss.svg"), 409)["detail"]
        assert detail == "Training loss by step: no run has this curve, or it is no longer stored"
        started = start(api, tasks=[{**TASKS[0], "budget": {"epochs": 2}}])
        detail = problem(api.get(f"/v1/comparisons/{started['id']}/plots/endpoints.png"), 409)["detail"]
        assert detail.endswith("no final run has a result yet")

    @pytest.mark.parametrize(
        ("path", "status", "detail"),
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
    def test_invalid_requests_name_the_field(self, api, path, status, detail):
        started = start(api)["id"]
        assert detail in problem(api.get(f"/v1/comparisons/{started}/plots/{path}"), status)["detail"]

    def test_unknown_comparison_returns_404(self, api):
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
        names = [plot["name"] for plot in api.get(f"/v1/jobs/{job}/plots").json()["plots"]]
        assert names == ["loss", "diagnostics", "lambda_max", "lambda_max/1.weight", "train_loss", "val_loss"]
        for name in names:
            for ending, query in (("svg", {"theme": "dark"}), ("png", {"log": True, "smooth": 0.5, "width": 320})):
                response = api.get(f"/v1/jobs/{job}/plots/{name}.{ending}", params=query)
                assert response.status_code == 200, response.text
        disposition = response.headers["content-disposition"]
        assert disposition == f'inline; filename="job-{str(job)[-8:]}-val_loss.png"'

    @pytest.mark.parametrize(
        ("path", "status", "detail"),
        [
            ("accuracy.svg", 404, "unknown plot 'accuracy'; choose one of loss, diagnostics"),
            ("loss.gif", 404, "choose a name that ends in .svg or .png"),
            ("loss.svg?smooth=1", 422, "0.99"),
            ("loss.svg?task=1", 422, "unknown field"),
        ],
    )
    def test_invalid_requests_name_the_field(self, api, job, path, status, detail):
        assert detail in problem(api.get(f"/v1/jobs/{job}/plots/{path}"), status)["detail"]

    def test_job_without_points_has_no_plots(self, api):
        job_id = submit()
        assert api.get(f"/v1/jobs/{job_id}/plots").json() == {"plots": []}
        assert "none is available yet" in problem(api.get(f"/v1/jobs/{job_id}/plots/loss.svg"), 404)["detail"]
        problem(api.get(f"/v1/jobs/{uuid4()}/plots/loss.svg"), 404)


class TestQueue:
    @pytest.fixture
    def release(self):
        """Blocks the drawing thread until this event is set, or the test ends."""
        event = Event()
        FIGURES.submit(event.wait)
        yield event
        event.set()

    def test_figures_do_not_block_other_requests(self, key, server, release):  # noqa: F811
        """45 figures are requested: more than threads and places in the queue. One thread draws figures and reports."""
        job = submit()
        do(write.append, [(job, {"loss": ([1, 2], [2.0, 1.0], [0.1, 0.2])})])
        limits = httpx2.Limits(max_connections=60)
        with (
            httpx2.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {key}"}, limits=limits, timeout=60
            ) as client,
            ThreadPoolExecutor(45) as pool,
        ):
            requests = [pool.submit(client.get, f"/v1/jobs/{job}/plots/loss.png") for _ in range(45)]
            until(lambda: sum(request.done() for request in requests) == 45 - FIGURES.max_waiting)
            assert client.get("/v1/me", timeout=5).status_code == 200
            assert database.engine().pool.checkedout() == 0
            refused = client.get(f"/v1/comparisons/{uuid4()}/report")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert client.get(f"/v1/comparisons/{uuid4()}/report?format=csv").status_code == 404
            release.set()
            statuses = [request.result().status_code for request in requests]
        assert sorted(statuses) == [200] * FIGURES.max_waiting + [503] * (45 - FIGURES.max_waiting)
