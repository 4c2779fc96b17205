import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import ko

# Runs in a process that can import torch, what torch itself requires, and ko: nothing else that is installed here.
TRAIN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ModuleNotFoundError("not installed: " + name, name=name)
sys.meta_path.insert(0, Refuse())
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


def required_by_torch() -> set[str]:
    """Names of the distributions that torch needs, with what those need."""
    found: set[str] = set()
    waiting = ["torch"]
    while waiting:
        name = waiting.pop()
        found.add(name)
        for requirement in requires(name) or []:
            if "extra" not in requirement and "nvidia" not in requirement and "cuda" not in requirement:
                needed = requirement.split(";")[0].split("[")[0].rstrip("<>=!~.0123456789, ()")
                waiting += {needed} & set().union(*packages_distributions().values()) - found
    return found


def test_public_names() -> None:
    assert sorted(ko.__all__) == sorted(set(ko.__all__))
    assert all(hasattr(ko, name) for name in ko.__all__)


def test_it_trains_with_torch_alone() -> None:
    allowed = required_by_torch()
    assert {"torch", "sympy"} <= allowed
    owners = packages_distributions()
    refused = {module for module in owners if not set(owners[module]) & allowed}
    refused = refused - {"ko"} | {"service", "workers", "kotrain", "migrations"}
    assert {"numpy", "sklearn", "torchvision"} <= refused
    code = TRAIN.replace("{refused}", repr(refused))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr
