"""Optimizers of installed packages, read from their source."""

import sys

import pytest

from service.code import plugins
from service.specs.catalog import uploaded
from tests import plugin_packages

MODULE = "from torch.optim import SGD\n\nclass Mine(SGD):\n    def __init__(self, params, lr: float = 0.1): ...\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a distribution with these entry points and files, and returns the folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(entry_points, files, distribution="lab"):
        plugin_packages.install(tmp_path, entry_points, files, distribution)
        return tmp_path

    yield install
    plugin_packages.restart()
    for name in [name for name in sys.modules if name.startswith("a_lab")]:
        del sys.modules[name]


def refusal(name):
    return plugins.plugins()[name].declaration.refusal


def test_a_plugin_has_the_version_of_its_modules_and_the_facts_of_its_distribution(install):
    install("mine = a_lab.mine:Mine", {"a_lab/__init__.py": "raise SystemExit\n", "a_lab/mine.py": MODULE})
    (plugin,) = plugins.plugins().values()
    declared = plugin.declaration
    assert uploaded.is_uploaded(declared.name)
    assert (plugin.name, declared.name.partition("@")[0], declared.class_name) == ("a_lab/mine", "a_lab/mine", "Mine")
    assert (plugin.fact("Version"), plugin.url) == ("1.2", "https://lab.example")
    assert "plug-in of lab 1.2" in declared.remarks[0]
    assert plugins.find("a_lab/mine") == plugins.find(declared.name) == declared
    assert plugins.find("a_lab/mine@00000000") is None
    assert plugins.why_missing("a_lab/mine@00000000").endswith(f"the installed version is {declared.name}")
    assert "unknown plug-in 'a_lab/mne' (did you mean 'a_lab/mine'?)" in plugins.why_missing("a_lab/mne")
    assert plugins.why_missing("ada/mine") is None


def test_what_can_change_results_changes_the_version(install, tmp_path):
    files = {"a_lab/__init__.py": "", "a_lab/mine.py": MODULE + MODULE.replace("Mine", "Other"), "a_lab/step.py": ""}
    metadata = tmp_path / "lab-1.2.dist-info" / "METADATA"

    def version():
        return plugins.plugins()["a_lab/mine"].declaration.name

    install("mine = a_lab.mine:Mine", files)
    versions = [version()]
    install("mine = a_lab.mine:Other", files)
    versions.append(version())
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))
    plugin_packages.restart()
    versions.append(version())
    (tmp_path / "a_lab" / "step.py").write_text("x = 1")
    plugin_packages.restart()
    versions.append(version())
    install("mine = a_lab.mine:Mine", files)
    assert version() == versions[0]
    assert len({*versions}) == 4


@pytest.mark.parametrize(
    ("entry_point", "name", "reason"),
    [
        ("mine = a_lab.mine:Mine:Other", "a_lab/mine", "its source cannot be read: "),
        ("mine = timm.mine:Mine", "timm/mine", "the package cannot be named timm"),
        ("Mine = a_lab.mine:Mine", "a_lab/Mine", "the name of the entry point must be 1 to 30 lower-case letters"),
        ("mine = a_lab.other:Mine", "a_lab/mine", "the package a_lab has no source file of the module other"),
        ("mine = b_lab.mine:Mine", "b_lab/mine", "the package b_lab is not installed"),
        ("mine = a_lab:Mine", "a_lab/mine", "it imports .mine.Mine: name the module that defines it"),
        ("mine = a_lab.mine:Other", "a_lab/mine", "the entry point is 'Other', but the file defines Mine"),
    ],
)
def test_a_broken_plugin_is_refused_beside_others(install, entry_point, name, reason):
    files = {"a_lab/__init__.py": "from .mine import Mine\n", "a_lab/mine.py": MODULE}
    install(f"good = a_lab.mine:Mine\n{entry_point}", files)
    assert refusal("a_lab/good") is None
    assert reason in refusal(name)


def test_names_that_no_plugin_can_have_make_no_package(install):
    install("mine = torch.mine:Mine\nother = a lab.mine:Mine\ngood = a_lab.mine:Mine", {"a_lab/mine.py": MODULE})
    assert plugins.packages() == {"a_lab"}


def test_two_packages_with_one_name_are_refused(install):
    install("mine = a_lab.mine:Mine", {"a_lab/mine.py": MODULE})
    install("mine = a_lab.other:Mine", {"a_lab/other.py": MODULE}, "second")
    assert refusal("a_lab/mine") == "it is defined more than once, by lab 1.2 and second 1.2"


@pytest.mark.parametrize("base", ["from a_lab import base", "from . import base", "from .base import Base"])
def test_its_base_may_stand_in_another_module(install, base):
    name = "Base" if base.endswith("Base") else "base.Base"
    text = MODULE.replace("from torch.optim import SGD", base).replace("(SGD)", f"({name})")
    install("mine = a_lab.mine:Mine", {"a_lab/mine.py": text, "a_lab/base.py": "class Base: ..."})
    assert refusal("a_lab/mine") is None


def test_a_class_that_is_certainly_no_optimizer_is_refused(install):
    text = MODULE.replace("from torch.optim import SGD", "from torch.nn import Module").replace("(SGD)", "(Module)")
    install("mine = a_lab.mine:Mine", {"a_lab/mine.py": text})
    assert "the file defines no optimizer" in refusal("a_lab/mine")


def test_any_change_of_the_package_changes_the_version(install):
    install("mine = a_lab.mine:Mine", {"a_lab/mine.py": MODULE, "a_lab/parts/helper.py": "RATE = 1\n"})

    def version():
        plugins.plugins.cache_clear()
        return plugins.plugins()["a_lab/mine"].declaration.name

    versions = [version()]
    folder = install("mine = a_lab.mine:Mine", {"a_lab/parts/helper.py": "RATE = 2\n"}) / "a_lab" / "parts"
    versions.append(version())
    (folder / "helper.py").rename(folder / "other.py")
    versions.append(version())
    assert len({*versions}) == 3
    assert version() == versions[-1]


def test_a_plugin_that_changed_after_it_was_read_is_not_taken_for_its_old_version(install):
    text = "def make(model, lr: float = 0.1): ...\n"
    folder = install("mine = a_lab.mine:make", {"a_lab/mine.py": text})
    old = plugins.plugins()["a_lab/mine"].declaration.name
    assert plugins.load(old).__name__ == "make"
    (folder / "a_lab" / "mine.py").write_text(text.replace("0.1", "0.2"))
    with pytest.raises(ValueError, match=f"the package of {old} was changed"):
        plugins.load(old)


def test_a_module_without_a_class_in_the_entry_point_defines_its_only_optimizer(install):
    install("mine = a_lab.mine", {"a_lab/mine.py": "def make(model, lr: float = 0.1): ...\n"})
    assert plugins.load("a_lab/mine").__name__ == "make"
