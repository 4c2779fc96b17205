"""The command line from `up` to `down`: submit, metrics, compare."""

import json
import os
import subprocess
import sys

import pytest

from tests import forked


@pytest.fixture
def kotrain(home):
    """Run a command with this home: (exit status, standard output, standard error)."""
    environment = {**os.environ, "KOTRAIN_HOME": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in environment.items() if name not in ("KOTRAIN_URL", "KOTRAIN_KEY")}
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "kotrain", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started[-1]

    def run(*arguments):
        process = forked.run("kotrain", *arguments, env=environment)
        return process.returncode, process.stdout, process.stderr

    run.start = start
    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def test_from_up_to_down(kotrain):
    up = kotrain.start("up", "--port", "0")
    assert up.stdout.readline().startswith("kotrain is running at http://127.0.0.1:")

    submit = ("submit", "digits", "mlp", "--epochs", "2", "--seeds", "2", "--tag", "study:first", "--wait")
    for optimizer in ("adam", "ko"):
        status, out, err = kotrain(*submit[:3], optimizer, *submit[3:])
        lines = [line.split("\t") for line in out.splitlines()]
        assert (status, [line[1] for line in lines]) == (0, ["succeeded"] * 2), err
        assert all(float(line[2]) > 0 and line[3].endswith(f"/jobs/{line[0]}") for line in lines)

    _, out, _ = kotrain("metrics", out.split()[0], "--name", "val_accuracy")
    assert [line.split()[:2] for line in out.splitlines()] == [["metric", "points"], ["val_accuracy", "13"]]

    status, out, _ = kotrain("compare", "digits", "mlp", "--tag", "study:first")
    assert status == 0
    assert all(word in out for word in ("ko soft (adam)", "p (Holm)", "95 % interval")), out
    answer = json.loads(kotrain("compare", "digits", "mlp", "--json")[1])
    assert [group["n"] for group in answer["groups"]] == [2, 2]

    diverging = ("--lr", "100", "--param", "model.init_scale=100", "--epochs", "5")
    status, out, _ = kotrain("submit", "digits", "mlp", "sgd", *diverging, "--wait")
    assert status == 1  # because the job failed
    assert "failed: diverged" in out

    assert kotrain("down") == (0, "", "stopped\n")
    assert up.wait(timeout=5) == 0
    assert kotrain("down")[0] == 1
