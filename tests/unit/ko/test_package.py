"""The package's public names, and training with torch as the only dependency."""

import re
import subprocess
import sys
from importlib.metadata import distribution, distributions, packages_distributions

import ko

INSTALLED = {re.sub(r"[-_.]+", "-", installed.name).lower() for installed in distributions()}

# Runs in a process that can import only ko, torch, and the packages that torch requires.
TRAIN = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {refused} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
import warnings; warnings.simplefilter("ignore")  # torch says that numpy is missing
import torch
from ko import KO
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = KO(model.parameters(), lr=1e-3, base="adam")
x, y = torch.randn(16, 4), torch.randint(0, 2, (16,))
losses = []
for _ in range(50):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(losses[-1] < losses[0])
"""


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def required_by_torch() -> set[str]:
    """Names of the distributions that torch requires, directly or indirectly."""
    names: set[str] = set()
    queue = ["torch"]
    while queue:
        name = queue.pop()
        names.add(canonical(name))
        for requirement in distribution(name).requires or []:
            needed = canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0])
            if "extra ==" not in requirement and needed in INSTALLED and needed not in names:
                queue.append(needed)
    return names


def test_public_names() -> None:
    assert sorted(ko.__all__) == [
        *("Diagnosis", "Fade", "KO", "MuonAdamW", "diagnose", "effective_rank", "largest_eigenvalue"),
        *("layer_weight_correlations", "param_groups", "temperature", "velocity_energy", "velocity_entropy"),
        "weight_correlation",
    ]
    assert all(hasattr(ko, name) for name in ko.__all__)


def test_trains_with_torch_as_the_only_dependency() -> None:
    allowed = required_by_torch()
    assert {"torch", "sympy"} <= allowed
    owners = packages_distributions()
    refused = {module for module in owners if not set(map(canonical, owners[module])) & allowed}
    refused = refused - {"ko"} | {"service", "workers", "kotrain", "migrations"}
    assert {"numpy", "sklearn", "torchvision"} <= refused
    code = TRAIN.replace("{refused}", repr(refused))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.stdout.strip(), process.returncode) == ("True", 0), process.stderr
