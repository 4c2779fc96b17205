"""The guide on optimizers of one's own, run as printed, with a member's key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.accounts import api_keys
from tests.acceptance.lab import Api, running_worker

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/own-optimizer.md").read_text()
EXAMPLE = ROOT / "examples/own_optimizer"


@pytest.fixture
def server(schema):
    server = Api()
    with running_worker():
        yield server.ready()
    server.end()


def test_from_a_file_to_a_verdict(server, tmp_path):
    (commands,) = re.findall(r"(?ms)^```bash\n(.*?)^```", GUIDE)
    assert len(commands.splitlines()) <= 10
    commands = commands.replace("http://127.0.0.1:8000", server.url).replace("kt_...", api_keys.create("ada"))
    (tmp_path / "examples").mkdir()
    subprocess.run(["cp", "-r", EXAMPLE, tmp_path / "examples"], check=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    printed = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert "pass     resume" in printed.stdout
    assert re.search(r"ada/sign_momentum@[0-9a-f]{8}", printed.stdout)
    verdict = printed.stdout.splitlines()
    assert any("mine" in line and "SOAP" in printed.stdout for line in verdict), printed.stdout
