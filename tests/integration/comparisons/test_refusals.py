"""Invalid comparisons: each is refused, and the error names the field."""

import json

import pytest

from service.comparisons import lifecycle
from tests.integration.comparisons.comparison_calls import (
    LIMITED,
    REQUEST,
    start,
)


class TestInvalidRequests:
    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"optimizers": ["adam", "adam"], "tuning": None}, "/optimizers/1"),
            ({"optimizers": [{"name": "adam", "space": {}}, "sgd"]}, "/optimizers/0/space"),
            ({"tasks": [{"dataset": "imagenet", "model": "resnet18", "budget": {"epochs": 1}}]}, "/tasks/0/dataset"),
            ({"tasks": [REQUEST["tasks"][0] | {"batch_size": 5000}]}, "/tasks/0/batch_size"),
            ({"tasks": [REQUEST["tasks"][0] | {"device": "cuda"}]}, "/tasks/0/device"),
            ({"metric": "accuracy"}, "/metric"),
            ({"metric": "train_loss"}, "/metric"),
            ({"tasks": [REQUEST["tasks"][0] | {"budget": {}}]}, "/tasks/0/budget"),
            ({"name": "a\x00b"}, "/name"),
            ({"optimizers": [{"name": "adam", "label": "a\ufffe"}, "sgd"], "tuning": None}, "/optimizers/0/label"),
            ({"diverged_score": 1e999}, "/diverged_score"),
            ({"diverged_score": 1.7e308}, "/diverged_score"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"eval_every_steps": 5}]}, "/tasks/1"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"budget": {"steps": 39}}]}, "/tasks/1"),
            ({"tasks": [REQUEST["tasks"][0], REQUEST["tasks"][0] | {"dataset": LIMITED}]}, "/tasks/1"),
            ({"tags": {"a:b": "c"}}, "/tags/a:b"),
        ],
    )
    def test_error_points_to_the_field(self, ada, fields, pointer):
        for query in ({}, {"dry_run": True}):
            response = ada.post("/v1/comparisons", params=query, content=json.dumps(REQUEST | fields),
                                headers={"Content-Type": "application/json"})  # fmt: skip
            assert response.status_code == 422, response.text
            assert any(error["pointer"].startswith(pointer) for error in response.json()["errors"]), response.json()

    def test_comparison_beyond_the_configured_number_of_jobs_is_refused(self, ada, monkeypatch):
        monkeypatch.setenv("KOTRAIN_MAX_COMPARISON_JOBS", "7")
        lifecycle.settings.cache_clear()
        response = ada.post("/v1/comparisons", json=REQUEST)
        lifecycle.settings.cache_clear()
        assert response.status_code == 422
        assert "up to 8 jobs, and at most 7 are allowed" in response.json()["detail"]

    @pytest.mark.parametrize("path", ["", "/cancel", "/report"])
    def test_unknown_comparison_returns_404(self, ada, path):
        method = ada.post if path == "/cancel" else ada.get
        unknown = "0198c0de-0000-7000-8000-000000000000"
        assert method(f"/v1/comparisons/{unknown}{path}").status_code == 404
        assert method(f"/v1/comparisons/nonsense{path}").status_code == 422

    def test_unknown_report_format_is_refused(self, ada):
        comparison = start(ada)
        response = ada.get(f"/v1/comparisons/{comparison['id']}/report", params={"format": "pdf"})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "format"

    def test_key_is_required(self, ada):
        ada.headers.pop("Authorization")
        assert ada.post("/v1/comparisons", json=REQUEST).status_code == 401
