"""What importing `service.stats` brings, and what it must not."""

import subprocess
import sys

from service import stats


def test_public_names():
    assert len(set(stats.__all__)) == len(stats.__all__)
    assert all(hasattr(stats, name) for name in stats.__all__)


def test_every_public_name_says_what_it_is():
    assert all(getattr(stats, name).__doc__ for name in stats.__all__ if name != "Interval")


def test_scipy_stats_stays_out_of_the_api_process():
    code = "import sys, service.stats; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
