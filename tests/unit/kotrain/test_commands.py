"""The commands for jobs, runs and the catalog, on the API in this process: output, errors and exit status."""

import json
import re
from functools import partial
from uuid import uuid4

import pytest

from kotrain import Client, commands
from kotrain.studies import STUDIES
from service.accounts import api_keys
from service.metrics import write
from service.storage import database

JOB = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
SUBMIT = ("submit", "digits", "mlp", "adam", "--epochs", "1")


@pytest.fixture
def kotrain(api, monkeypatch, capsys):
    """Run a command on the API in this process: (exit status, lines of standard output, lines of standard error)."""
    monkeypatch.setattr("kotrain.client.Client", partial(Client, http=api))

    def run(*arguments):
        status = commands.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def points(client):
    """The id of a job with points of two metrics."""
    job = client.submit({"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}})
    with database.transaction() as session:
        write.append(session, [(job.id, {name: ([1], [0.5], [0.1]) for name in ("val_accuracy", "train_loss")})])
    return job.id


def test_submit_prints_one_id_per_seed(kotrain, client):
    status, out, err = kotrain(
        *SUBMIT, "--lr", 0.01, "--seed", 3, "--seeds", 2, "--tag", "a:b", "--param", "schedule=cosine"
    )
    assert (status, err) == (0, [])
    jobs = [client.get(line) for line in out]
    assert [job.spec["seed"] for job in jobs] == [3, 4]
    assert jobs[0].spec["optimizer"]["params"]["lr"] == 0.01
    assert jobs[0].spec["schedule"]["name"] == "cosine"
    assert jobs[0].tags == {"a": "b"}


def test_dry_run_prints_resolved_spec(kotrain):
    status, out, _ = kotrain(*SUBMIT, "--dry-run")
    assert status == 0
    assert json.loads("\n".join(out))["spec"]["budget"] == {"epochs": 1, "steps": None}


def test_prints_one_line_per_invalid_field(kotrain):
    status, out, err = kotrain(*SUBMIT, "--lr", -1, "--batch-size", 0)
    assert (status, out) == (1, [])
    assert sorted(err) == [
        "kotrain: /batch_size: input should be greater than or equal to 1",
        "kotrain: /optimizer/params/lr: input should be greater than 0",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sumbit"], "kotrain: No such command 'sumbit'. Did you mean 'submit'?"),
        (["submit", "digits", "mlp"], "kotrain: Invalid value: give DATASET MODEL OPTIMIZER, or FILE.json"),
        (["jobs", "--colour", "red"], "kotrain: No such option: --colour"),
        (
            ["study", "run", "KO-Claim"],
            "kotrain: Invalid value: unknown study 'KO-Claim' (did you mean 'ko-claims'?); choose one of "
            + ", ".join(STUDIES),
        ),
    ],
)
def test_usage_error_is_one_line_and_status_2(kotrain, arguments, message):
    assert kotrain(*arguments) == (2, [], [message])


@pytest.mark.parametrize(
    "arguments",
    [
        ("catalog", "Adma"),
        ("submit", "digits", "mlp", "Adma", "--epochs", "1"),
        ("compare", "digits", "mlp", "--optimizer", "Adma"),
    ],
)
def test_unknown_name_has_a_suggestion(kotrain, arguments):
    status, _, (error,) = kotrain(*arguments)
    assert status > 0
    assert " 'Adma' (did you mean 'adam'?); choose one of " in error


def test_every_error_is_printed(kotrain, tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**JOB, "tags": {f"a:{number}": "x" for number in range(30)}}))
    status, _, err = kotrain("submit", file)
    assert (status, len(err), err[-1]) == (1, 21, "kotrain: and 10 more errors")


def test_repeated_key_of_a_file_is_named(kotrain, tmp_path):
    file = tmp_path / "job.json"
    file.write_text('{"optimizer": {"name": "adam", "name": "ko"}}')
    assert kotrain("submit", file)[2] == [f"kotrain: Invalid value: {file}: /optimizer/name is given twice"]


def test_metric_that_cannot_be_compared_names_others(kotrain):
    status, _, (error,) = kotrain("compare", "digits", "mlp", "--metric", "foo")
    assert status == 1
    assert "such as test_accuracy or val_loss" in error


def test_lists_jobs(kotrain, client):
    tag = uuid4().hex
    job = client.submit(
        {
            "dataset": "digits",
            "model": "mlp",
            "optimizer": {"name": "ko", "params": {"bounded": True}},
            "budget": {"epochs": 1},
            "tags": {"jobs": tag},
        }
    )
    status, out, _ = kotrain("jobs", "--tag", f"jobs:{tag}")
    assert status == 0
    assert len(out) == 2
    assert out[1].split()[:8] == [str(job.id), "queued", "-", "0", "ko", "bounded", "(adam)", "lr=0.001"]
    listed = json.loads("".join(kotrain("jobs", "--tag", f"jobs={tag}", "--json")[1]))
    assert [listed_job["id"] for listed_job in listed] == [str(job.id)]
    assert kotrain("jobs", "--tag", "jobs=none") == (0, [], ["no jobs"])


def test_shows_cancels_and_retries_job(kotrain):
    _, (id_,), _ = kotrain(*SUBMIT)
    lines = kotrain("show", id_)[1]
    assert lines[0].split() == ["id", id_]
    assert lines[-1].split()[-1] == "queued"
    assert json.loads("\n".join(kotrain("show", id_, "--json")[1]))["id"] == id_
    assert kotrain("cancel", id_) == (0, [f"{id_} cancelled"], [])
    status, (retried,), _ = kotrain("retry", id_)
    assert status == 0
    assert json.loads("\n".join(kotrain("show", retried, "--json")[1]))["retry_of"] == id_
    assert kotrain("retry", retried)[0] == 1
    assert kotrain("metrics", retried) == (0, [], ["no metric points: none recorded yet, or removed by `kotrain gc`"])
    assert json.loads("\n".join(kotrain("metrics", retried, "--json")[1])) == {"metrics": {}}


class TestIds:
    def test_the_end_of_an_id_as_the_dashboard_shows_it(self, kotrain):
        _, (id_,), _ = kotrain(*SUBMIT)
        assert kotrain("show", id_[-8:])[1][0].split() == ["id", id_]
        assert kotrain("cancel", id_[-8:]) == (0, [f"{id_} cancelled"], [])
        status, out, err = kotrain("wait", id_[-8:])
        assert (status, err) == (1, ["1 cancelled"])
        assert out == [f"{id_}\tcancelled\t-\thttp://testserver/jobs/{id_}"]

    def test_many_are_cancelled_only_if_all_are_known(self, kotrain, client):
        _, ids, _ = kotrain(*SUBMIT, "--seeds", 3)
        status, out, err = kotrain("cancel", ids[0], "00000000")
        assert (status, out) == (1, [])
        assert err == ["kotrain: no job has an id that begins or ends with '00000000'"]
        assert client.get(ids[0]).status == "queued"
        kotrain("cancel", ids[1])
        status, out, err = kotrain("retry", *ids)
        assert (status, len(out), len(err)) == (1, 1, 2)
        status, out, err = kotrain("cancel", *ids, ids[0])
        assert (status, out, err) == (0, [f"{id_} cancelled" for id_ in ids], [])

    def test_cancels_your_unfinished_jobs_with_a_tag(self, kotrain, client, api):
        _, mine, _ = kotrain(*SUBMIT, "--seeds", 2, "--tag", "study:old")
        theirs = Client(http=api, key=api_keys.create("bob")).submit({**JOB, "tags": {"study": "old"}})
        status, out, _ = kotrain("cancel", "--tag", "study:old")
        assert (status, sorted(out)) == (0, sorted(f"{id_} cancelled" for id_ in mine))
        assert client.get(theirs).status == "queued"
        assert kotrain("cancel", "--tag", "study:old")[2] == ["no queued or running job of yours has this tag"]
        status, _, err = kotrain("cancel")
        assert (status, err) == (2, ["kotrain: Invalid value: give ID..., or --tag KEY:VALUE"])

    def test_an_ambiguous_part_lists_its_matches(self, kotrain):
        _, ids, _ = kotrain(*SUBMIT, "--seeds", 2)
        status, out, err = kotrain("cancel", ids[0][:6])
        assert (status, out, len(err)) == (1, [], 1)
        assert all(f"{id_} (queued)" in err[0] for id_ in ids)


def test_wait_prints_progress_and_results_of_all(kotrain, client):
    _, ids, _ = kotrain(*SUBMIT, "--seeds", 2)
    kotrain("cancel", *ids)
    status, out, _ = kotrain("wait", *ids, "--json")
    assert (status, [job["id"] for job in json.loads("".join(out))]) == (1, ids)
    _, (id_,), _ = kotrain(*SUBMIT)
    status, out, err = kotrain("wait", id_, "--timeout", 0)
    assert (status, out) == (1, [])
    assert err == ["1 queued", "kotrain: 1 of 1 job has not ended after 0 s"]


def test_edits_jobs_after_the_fact(kotrain, client):
    _, ids, _ = kotrain(*SUBMIT, "--seeds", 2, "--tag", "study:old")
    edit = ("edit", *ids, "--name", "first", "--note", "why", "--tag", "study:new", "--tag", "a=b")
    assert kotrain(*edit) == (0, ids, [])
    job = client.get(ids[1])
    assert (job.name, job.note, job.tags) == ("first", "why", {"study": "new", "a": "b"})
    assert kotrain("edit", ids[0], "--archive")[0] == 1  # it is queued
    kotrain("cancel", ids[0])
    assert kotrain("edit", ids[0], "--archive", "--no-tags", "--name", "")[0] == 0
    job = client.get(ids[0])
    assert (job.name, job.tags, job.archived_at is None) == (None, {}, False)
    assert [listed.id for listed in client.list()] == [client.get(ids[1]).id]
    assert len(json.loads("".join(kotrain("jobs", "--archived", "--json")[1]))) == 2
    assert kotrain("edit", ids[0], "--restore")[0] == 0
    assert len(list(client.list())) == 2
    for arguments in ((), ("--tag", "a:b", "--no-tags")):
        assert kotrain("edit", ids[0], *arguments)[0] == 2


def test_submit_prints_json(kotrain):
    status, out, err = kotrain(*SUBMIT, "--seeds", 2, "--json")
    assert [job["id"] for job in json.loads("".join(out))] == err
    assert status == 0


def test_no_seed_is_submitted_if_the_last_is_invalid(kotrain, client):
    before = len(list(client.list()))
    status, out, err = kotrain(*SUBMIT, "--seed", 2**63 - 2, "--seeds", 3)
    assert (status, out, len(err)) == (1, [], 1)
    assert "/seed" in err[0]
    assert len(list(client.list())) == before


def test_seeds_need_a_number_to_count_from(kotrain, tmp_path):
    (tmp_path / "job.json").write_text('{"seed": "x"}')
    expected = "kotrain: Invalid value: --seeds counts from `seed`, which has to be an integer"
    assert kotrain("submit", tmp_path / "job.json", "--seeds", 2) == (2, [], [expected])


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_says_what_was_submitted_when_it_ends_early(kotrain, monkeypatch, capsys, failure):
    ids = []

    def fail_at_second(id_, **_):
        ids.append(id_)
        if len(ids) == 2:
            raise failure

    monkeypatch.setattr(
        "builtins.print",
        lambda *values, file=None, **options: fail_at_second(*values) if file is None else file.write(f"{values[0]}\n"),
    )
    try:
        status = commands.run([*SUBMIT, "--seeds", "3"])
        assert status == 130
    except OSError:
        assert failure is not KeyboardInterrupt
    assert f"kotrain: job {ids[1]} was submitted" in capsys.readouterr().err


def test_unknown_metric_lists_those_of_the_job(kotrain, client, points):
    status, _, err = kotrain("metrics", points, "--name", "foo")
    assert (status, err) == (2, ["kotrain: Invalid value: the job has no metric foo; it has train_loss, val_accuracy"])


def test_timeout_of_down_is_not_negative(kotrain):
    status, _, err = kotrain("down", "--timeout", -1)
    assert status == 2
    assert "--timeout" in err[0]


def test_unknown_job_is_one_line(kotrain):
    unknown = uuid4()
    assert kotrain("show", unknown) == (1, [], [f"kotrain: job {unknown} not found"])


def test_compare_without_runs(kotrain):
    status, out, _ = kotrain("compare", "digits", "mlp", "--tag", "study:none", "--where", "model.init_scale=0.1")
    assert status == 0
    assert out == ["No finished job matches the query."]
    answer = json.loads("\n".join(kotrain("compare", "digits", "mlp", "--tag", "study=none", "--json")[1]))
    assert answer["groups"] == []


def test_catalog_lists_names_and_parameters(kotrain):
    _, out, _ = kotrain("catalog")
    assert [line.split()[1] for line in out if line.startswith("optimizer")][-3:] == ["ko", "bimaxwell", "control"]
    for name, parameter in (("ko", ["gamma", "0.1"]), ("control", ["base", "adam"])):
        _, out, _ = kotrain("catalog", name)
        assert [line.split()[:2] for line in out if line.startswith(parameter[0])] == [parameter]
    _, out, _ = kotrain("catalog", "torch")
    assert [line.split()[0] for line in out][1:3] == ["torch/adadelta", "torch/adafactor"]
    _, out, _ = kotrain("catalog", "torch/lbfgs")
    assert "- needs from the training loop: closure" in out
    assert [line.split()[:2] for line in out if line.startswith("max_iter")] == [["max_iter", "20"]]
    status, _, (error,) = kotrain("catalog", "torch/lbfg")
    assert (status, "did you mean 'torch/lbfgs'?" in error) == (1, True)
    assert "digits" in {
        dataset["name"] for dataset in json.loads("\n".join(kotrain("catalog", "--json")[1]))["datasets"]
    }


def test_connection_error_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("KOTRAIN_URL", "http://127.0.0.1:9")
    assert commands.run(["jobs"]) == 1
    assert (
        capsys.readouterr().err
        == "kotrain: cannot connect to kotrain at http://127.0.0.1:9; start it with `kotrain up`, or set KOTRAIN_URL\n"
    )


def test_down_without_running_stack(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KOTRAIN_HOME", str(tmp_path))
    (tmp_path / "lock").write_text("1\n")  # left by a killed stack: not locked, so no process to signal
    for arguments, folder in ((["down"], tmp_path), (["down", "--home", str(tmp_path / "other")], tmp_path / "other")):
        assert commands.run(arguments) == 1
        assert capsys.readouterr().err == f"kotrain: no stack is running from {folder}\n"


def test_prints_help_without_arguments(capsys):
    assert commands.run([]) == 0
    assert "submit" in capsys.readouterr().out


def test_keyboard_interrupt_is_status_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("kotrain.client.Client", interrupt)
    assert commands.run(["jobs"]) == 130
    assert capsys.readouterr().err == "kotrain: interrupted\n"


def test_demo_fails_early_if_report_cannot_be_written(kotrain, tmp_path):
    file = tmp_path / "no-such-folder" / "report.html"
    status, out, err = kotrain("demo", "--report", file)
    assert (status, out) == (1, [])
    assert err == [f"kotrain: cannot write the report to {file}: No such file or directory"]


@pytest.mark.parametrize(
    "command",
    [
        *((), ("submit",), ("jobs",), ("compare",), ("leaderboard",), ("catalog",)),
        *(("data", "add"), ("data", "fetch"), ("comparison", "start"), ("study", "run"), ("key",), ("gc",)),
    ],
)
def test_help_shows_arguments_in_capitals_and_flags_without_a_type(kotrain, command):
    status, out, _ = kotrain(*command, "--help")
    text = "\n".join(out)
    assert status == 0
    assert "<bool>" not in text
    assert not re.search(r"[\[{][a-z]", re.search("Usage: (.*)", text)[1])
