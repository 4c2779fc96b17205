import subprocess
import sys

import ko


def test_public_names() -> None:
    assert ko.__all__ == ["KO", "MuonAdamW", "layer_weight_correlations", "weight_correlation"]


def test_it_needs_torch_alone() -> None:
    code = (
        "import sys, torch; known = set(sys.modules); import ko;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - known} - set(sys.stdlib_module_names)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() in ("['ko']", "['ko', 'torch']")
