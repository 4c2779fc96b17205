"""Plug-ins in the process that trains with them."""

import sys

import pytest

from service.code import plugins
from service.specs.training import TrainSpec
from tests import plugin_packages
from workers.training import code_test, uploaded

MODULE = """
import torch

class Mine(torch.optim.Adam):
    '''Adam, with a rate that falls.'''

    def __init__(self, params, lr: float = 1e-2):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        {count}
        self.param_groups[0]["lr"] = 1e-2 / {counted}
        return super().step(closure)
"""
FORGETFUL = MODULE.format(count='self.count = getattr(self, "count", 0) + 1', counted="self.count")
MINDFUL = MODULE.format(
    count='group = self.param_groups[0]; group["count"] = group.get("count", 0) + 1', counted='group["count"]'
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs the plug-in `d_lab/mine` with this module."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module):
        plugin_packages.install(tmp_path, "mine = d_lab.mine:Mine", {"d_lab/__init__.py": "", "d_lab/mine.py": module})

    yield install
    plugin_packages.restart()
    for name in [name for name in sys.modules if name.startswith("d_lab")]:
        del sys.modules[name]


@pytest.mark.parametrize(("module", "resumes"), [(MINDFUL, True), (FORGETFUL, False)])
@pytest.mark.parametrize("base", [True, False])
def test_only_those_that_resume_bit_for_bit_write_checkpoints(install, module, resumes, base):
    install(module)
    name = plugins.plugins()["d_lab/mine"].declaration.name
    optimizer = {"name": "ko", "params": {"base": name}} if base else {"name": name, "params": {}}
    uploaded.check_plugins(optimizer)
    spec = TrainSpec(dataset="digits", model="mlp", optimizer=optimizer, budget={"epochs": 1})
    assert spec.optimizer.is_resumable is resumes


def test_the_conformance_test_runs_on_this_machine(install, capsys):
    install(FORGETFUL)
    assert code_test.main(["d_lab/mine"]) == 0
    printed = capsys.readouterr().out
    assert "Mine(lr=0.01): Adam, with a rate that falls" in printed
    assert "warning  resume" in printed
    assert code_test.main(["d_lab/mien"]) == 1
    assert "did you mean 'd_lab/mine'?" in capsys.readouterr().err
    assert code_test.main(["missing.py"]) == 1
    assert "no file and no plug-in on this machine is named 'missing.py'" in capsys.readouterr().err
