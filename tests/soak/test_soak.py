"""Half a minute of the soak test; `make soak` runs ten minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.storm import Storm

ROOT = Path(__file__).parents[2]
MIN_FAULTS, MIN_JOBS = len(Storm.FAULTS), 15


@pytest.mark.full
@pytest.mark.timeout(400)
def test_half_a_minute_of_faults_loses_nothing():
    arguments = ["--seconds", "30", "--faults", str(MIN_FAULTS), "--jobs", str(MIN_JOBS)]
    process = subprocess.run(
        [sys.executable, "-m", "tests.soak", *arguments, "--specs", "adam", "ko soft", "sgd", "stops at target"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads(process.stdout.splitlines()[-1])
    assert (report["lost"], report["problems"]) == (0, [])
    assert report["injected"] >= MIN_FAULTS
    assert report["jobs"] >= MIN_JOBS
    assert report["interrupted"] > 0, "no job was interrupted"
