"""Public names of `service.stats`, and the modules that it must not import."""

import subprocess
import sys

from service import stats


def test_public_names():
    assert len(set(stats.__all__)) == len(stats.__all__)
    assert all(hasattr(stats, name) for name in stats.__all__)


def test_every_public_name_has_a_docstring():
    assert all(getattr(stats, name).__doc__ for name in stats.__all__ if name != "Interval")


def test_import_does_not_load_scipy_stats():
    code = "import sys, service.stats; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
