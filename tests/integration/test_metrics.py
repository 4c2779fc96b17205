"""`GET /v1/jobs/{id}/metrics`: parts, downsampling and the limit of points."""

import math
from uuid import UUID

import pytest

from service.metrics import read, write
from service.storage import database
from service.web.routes import jobs
from tests.integration.api_calls import JOB, problem


class TestMetrics:
    @pytest.fixture
    def url(self, api):
        """Metrics of a job with 300 points of two metrics, in chunks of 100."""
        url = api.post("/v1/jobs", json=JOB).headers["Location"]
        values = [math.sin(step / 7) for step in range(300)]
        values[137] = 9.0
        for start in (0, 100, 200):
            steps = list(range(start + 1, start + 101))
            points = (steps, values[start : start + 100], [step / 2 for step in steps])
            with database.transaction() as session:
                write.append(session, [(UUID(url.rpartition("/")[2]), {"train_loss": points, "grad_norm": points})])
        return url + "/metrics"

    def steps(self, api, url, **query):
        return {name: curve["steps"] for name, curve in api.get(url, params=query).json()["metrics"].items()}

    def test_all_points(self, api, url):
        assert self.steps(api, url) == {"grad_norm": list(range(1, 301)), "train_loss": list(range(1, 301))}

    def test_range_of_steps(self, api, url):
        query = {"names": "train_loss", "from_step": 95, "to_step": 203}
        assert self.steps(api, url, **query) == {"train_loss": list(range(95, 204))}
        assert self.steps(api, url, from_step=301) == {}

    @pytest.mark.parametrize("held", [1, 120, 10_000])
    def test_downsampled_curve_keeps_ends_and_extremes(self, api, url, monkeypatch, held):
        """However many points are held while the curve is read."""
        monkeypatch.setattr(read, "HELD_POINTS", held)
        steps = self.steps(api, url, max_points=10)["train_loss"]
        assert len(steps) <= 10
        assert {1, 138, 300} <= set(steps)

    def test_more_points_than_a_response_may_have(self, api, url, monkeypatch):
        monkeypatch.setattr(jobs, "MAX_POINTS", 500)
        (error,) = problem(api.get(url), 422)["errors"]
        assert error["pointer"] == "max_points"
        assert error["detail"].startswith("these curves have 600 points; at most 500 are returned at once: set max_po")
        assert len(self.steps(api, url, names="train_loss")["train_loss"]) == 300
        assert len(self.steps(api, url, max_points=250)) == 2
        assert len(self.steps(api, url, to_step=200)["grad_norm"]) == 200

    @pytest.fixture
    def job_id(self, url):
        return UUID(url.split("/")[-2])

    @pytest.mark.parametrize("names", [None, ["train_loss"]])
    def test_curves_of_jobs_are_bounded_together(self, job_id, monkeypatch, names):
        monkeypatch.setattr(read, "MAX_POINTS", 40)
        with database.transaction() as session:
            curves = read.curves(session, [job_id], names)[job_id]
            assert read.curves(session, [job_id], ["nothing"]) == {}
        assert sum(len(curve.steps) for curve in curves.values()) <= 40
        assert len(curves["train_loss"].steps) > 15
        for curve in curves.values():
            assert {1, 138, 300} <= set(curve.steps.tolist())
            assert curve.values.max() == 9.0

    @pytest.mark.parametrize("merged_after", [None, 0, 1, 3])
    def test_pages_have_every_point_once(self, job_id, monkeypatch, merged_after):
        """Also if the chunks are merged in between, because the job has ended."""
        monkeypatch.setattr(read, "CHUNKS_IN_PAGE", 1)
        with database.transaction() as session:
            stored = read.curves(session, [job_id])[job_id]
        pages = {}
        for number, (name, page) in enumerate(read.pages(job_id)):
            pages.setdefault(name, []).append(page)
            if number == merged_after:
                with database.transaction() as session:
                    write.merge(session, job_id)
        assert list(pages) == sorted(stored)
        for name, curve in stored.items():
            for column in ("steps", "values", "wall_seconds"):
                joined = [value for page in pages[name] for value in getattr(page, column).tolist()]
                assert joined == getattr(curve, column).tolist()
