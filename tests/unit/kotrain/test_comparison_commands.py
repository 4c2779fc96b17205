"""The commands for comparisons, studies and the leaderboard, and the client's methods for them."""

import json
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from kotrain import Client, ComparisonRequest, InvalidRequest, NotFound, WaitTimeout, commands

REQUEST = {
    "name": "typed",
    "tasks": [{"dataset": "digits", "model": "mlp", "budget": {"epochs": 1}}],
    "optimizers": [{"name": "adam", "space": {"lr": {"log_uniform": [0.001, 0.1]}}}, "sgd"],
    "tuning": {"trials": 2},
    "seeds": 3,
}
UNKNOWN = "0198c0de-0000-7000-8000-000000000000"


@pytest.fixture
def kotrain(api, monkeypatch, capsys):
    """Run a command on the API in this process: (exit status, standard output, standard error)."""
    monkeypatch.setattr("kotrain.client.Client", partial(Client, http=api))

    def run(*arguments):
        status = commands.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "question.json"
    path.write_text(json.dumps(REQUEST))
    return path


class TestClient:
    def test_start_show_and_cancel(self, client):
        comparison = client.start_comparison(REQUEST)
        assert (comparison.status, comparison.progress.jobs) == ("running", 5)
        assert client.comparison(comparison).id == client.comparison(str(comparison.id)).id == comparison.id
        assert next(client.comparisons(page_size=1)).id == comparison.id
        with pytest.raises(WaitTimeout):
            client.wait_for_comparison(comparison, timeout=0.2)
        assert client.cancel_comparison(comparison).status == "cancelled"
        assert client.wait_for_comparison(comparison.id).status == "cancelled"

    def test_repeated_idempotency_key_returns_first_comparison(self, client):
        request = ComparisonRequest.model_validate(REQUEST)
        first, second = (client.start_comparison(request, idempotency_key="key") for _ in range(2))
        assert first.id == second.id

    def test_dry_run_creates_no_comparison(self, client):
        before = len(list(client.comparisons()))
        assert client.start_comparison(REQUEST, dry_run=True).jobs_at_most == 8
        assert len(list(client.comparisons())) == before

    def test_reports(self, client):
        comparison = client.start_comparison(REQUEST)
        assert b"toprule" in client.report(comparison, "latex")
        assert client.report(comparison).startswith(b"<!DOCTYPE html>")

    def test_errors(self, client):
        with pytest.raises(InvalidRequest) as error:
            client.start_comparison({**REQUEST, "optimizers": ["adam", "adam"], "tuning": None})
        assert [field.pointer for field in error.value.fields] == ["/optimizers/1"]
        with pytest.raises(NotFound):
            client.comparison(UUID(UNKNOWN))
        cancelled = client.cancel_comparison(client.start_comparison(REQUEST))
        assert client.cancel_comparison(cancelled).status == "cancelled"

    def test_leaderboard_without_runs(self, client):
        assert client.leaderboard("digits", "cnn").boards == []


class TestCommands:
    def test_dry_run_prints_plan(self, kotrain, file):
        status, out, _ = kotrain("comparison", "start", file, "--dry-run")
        assert status == 0
        assert "8 jobs" in out
        assert "never read the test set" in out.replace("\n", " ")

    def test_warnings_are_printed_by_dry_run_start_and_show(self, kotrain, tmp_path):
        schedule = {"name": "constant", "params": {"warmup_steps": 10**6}}
        warned = tmp_path / "warned.json"
        warned.write_text(json.dumps(REQUEST | {"tasks": [REQUEST["tasks"][0] | {"schedule": schedule}]}))
        text = "the warm-up takes 1,000,000 steps, but every run ends after"
        assert text in kotrain("comparison", "start", warned, "--dry-run")[1].replace("\n", " ").lower()
        _, id_, error = kotrain("comparison", "start", warned)
        assert text in error.lower()
        assert text in kotrain("comparison", "show", id_.strip())[1].replace("\n", " ").lower()

    def test_start_show_list_report_cancel(self, kotrain, file, tmp_path):
        status, out, _ = kotrain("comparison", "start", file)
        id_ = out.strip()
        assert (status, str(UUID(id_))) == (0, id_)
        assert "0 of 5 runs" in kotrain("comparison", "show", id_)[1]
        assert json.loads(kotrain("comparison", "show", id_, "--json")[1])["id"] == id_
        assert f"{id_}  running" in kotrain("comparison", "list")[1]
        page = tmp_path / "report.html"
        assert kotrain("comparison", "report", id_, "-o", page)[0] == 0
        assert page.read_text().startswith("<!DOCTYPE html>")
        assert kotrain("comparison", "report", id_, "--format", "csv")[1].startswith("task,")
        assert kotrain("comparison", "cancel", id_)[1] == f"{id_} cancelled\n"

    def test_edits_a_comparison_after_the_fact(self, kotrain, file, client):
        id_ = kotrain("comparison", "start", file)[1].strip()
        edit = ("comparison", "edit", id_[-8:])
        assert kotrain(*edit, "--name", "better", "--tag", "a:b", "--note", "why")[:2] == (0, f"{id_}\n")
        shown = client.comparison(id_)
        assert (shown.name, shown.tags, shown.note) == ("better", {"a": "b"}, "why")
        kotrain("comparison", "cancel", id_)
        assert kotrain(*edit, "--archive")[0] == 0
        assert kotrain("comparison", "list")[2] == "no comparisons\n"
        assert id_ in kotrain("comparison", "list", "--archived")[1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["comparison", "start", "/nowhere.json"],
                "No such file or directory; give FILE.json, or `-` for standard",
            ),
            (["study", "run", "ko-cost", "-o", "/dev/null/x"], "/dev/null/x/ko-cost-small: Not a directory"),
            (["comparison", "show", UNKNOWN], "not found"),
            (["comparison", "report", UNKNOWN, "--format", "pdf"], "choose html, csv, latex or json"),
            (["comparison", "report", UNKNOWN, "--open", "--format", "csv"], "--open needs the HTML report"),
            (["study", "run", "ko-clams"], "choose one of first-look, ko-claims"),
            (["study", "run", "ko-claims", "--budget", "tiny"], "choose small or full"),
            (["leaderboard", "digits", "cnn"], "no finished runs"),
        ],
    )
    def test_prints_error(self, kotrain, arguments, message):
        assert message in kotrain(*arguments)[2]

    def test_unwritable_report_is_one_line(self, kotrain, file):
        id_ = kotrain("comparison", "start", file)[1].strip()
        status, _, err = kotrain("comparison", "report", id_, "-o", "/nowhere/x.html")
        assert (status, err) == (2, "kotrain: Invalid value: /nowhere/x.html: No such file or directory\n")

    def test_opens_report_in_browser(self, kotrain, file, tmp_path, monkeypatch):
        id_ = kotrain("comparison", "start", file)[1].strip()
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n')
        browser.chmod(0o755)
        monkeypatch.setenv("BROWSER", str(browser))
        monkeypatch.setattr("webbrowser._tryorder", None)  # the module caches the browsers of the machine
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        status, out, err = kotrain("comparison", "report", id_, "--open")
        assert (status, out) == (0, "")
        page = Path(err.partition(":")[0])
        assert page.read_text().startswith("<!DOCTYPE html>")
        assert page.parent.stat().st_mode & 0o777 == 0o700
        report = tmp_path / "with a space.html"
        assert kotrain("report", id_, "--open", "-o", report)[0] == 0
        assert (tmp_path / "opened").read_text().split() == [page.as_uri(), report.as_uri()]

    @pytest.mark.parametrize("browser", ["", "/nowhere/browser"])
    def test_writes_report_without_browser(self, kotrain, file, tmp_path, monkeypatch, browser):
        id_ = kotrain("comparison", "start", file)[1].strip()
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("BROWSER", browser)
        monkeypatch.setattr("webbrowser._browsers", {})
        monkeypatch.setattr("webbrowser._tryorder", [browser] if browser else [])  # hide the browsers of the machine
        page = tmp_path / "page.html"
        status, _, err = kotrain("comparison", "report", id_, "--open", "-o", page)
        assert status == 0
        assert err.splitlines()[1] == f"no browser available here: open {page} on a machine with one"
        assert page.exists()

    def test_prints_invalid_field(self, kotrain, tmp_path):
        invalid = tmp_path / "invalid.json"
        invalid.write_text(json.dumps({**REQUEST, "tuning": None}))
        status, _, err = kotrain("comparison", "start", invalid)
        assert status == 1
        assert "/tuning: needed, because optimizer 0 has a search space" in err

    def test_lists_shows_and_plans_studies(self, kotrain):
        assert {"first-look", "ko-claims", "ko-ablation", "ko-cost"} <= set(kotrain("study", "list")[1].split())
        request = json.loads(kotrain("study", "show", "ko-cost")[1])
        assert ComparisonRequest.model_validate(request).metric == "samples_per_second"
        status, out, _ = kotrain("study", "run", "ko-cost", "--dry-run")
        assert status == 0
        assert "jobs" in out
