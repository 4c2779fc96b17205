"""The package's public names, its lazy imports, and its messages for missing packages."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import kotrain
from kotrain import cli

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "sqlalchemy",
    "psycopg",
    "fastapi",
    "celery",
    "redis",
    "uvicorn",
    "pydantic_settings",
}

INSTALL_SDK = "install kotrain's extra `sdk`: run pip install '.[sdk]' in kotrain's checkout"
INSTALL_ALL = "install kotrain's extra `all`: run pip install '.[all]' in kotrain's checkout"

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Missing())
sys.argv = ["kotrain", *{arguments!r}]
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_public_names():
    public = {name for name in dir(kotrain) if not name.startswith("_")}
    modules = {module.name for module in iter_modules(kotrain.__path__)}
    assert public - modules - {"TYPE_CHECKING", "Any"} == set(kotrain.__all__)
    assert import_module("kotrain.public").__all__ == kotrain.__all__
    assert set(kotrain.__all__) == {
        *("Client", "JobRequest", "JobView", "JobStatus", "Reason", "Summary"),
        *(
            "Metrics",
            "DryRun",
            "Catalog",
            "ModelDetail",
            "ModelLibraryDetail",
            "OptimizerDetail",
            "CompareAnswer",
            "Leaderboard",
        ),
        *("ComparisonRequest", "ComparisonDryRun", "ComparisonAnswer", "ComparisonStatus"),
        *("KotrainError", "ConnectionFailed", "WaitTimeout", "NotRunning", "ApiError"),
        *("InvalidAddress", "InvalidValue", "UnexpectedResponse"),
        *("InvalidRequest", "Unauthorized", "Forbidden", "NotFound", "Conflict", "Unavailable"),
    }


def imported_by(code):
    """Top-level packages that the code imports."""
    process = run(f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)")
    return {name.partition(".")[0] for name in json.loads(process.stderr)}


def test_public_names_resolve():
    assert all(getattr(kotrain, name).__name__ == name for name in kotrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kotrain.nothing


def test_modules_are_attributes():
    process = run("import kotrain; print(kotrain.errors.NotFound.__name__, kotrain.client.Client.__name__)")
    assert (process.stdout, process.stderr) == ("NotFound Client\n", "")


def test_import_loads_neither_server_nor_torch():
    imported = imported_by("from kotrain import *")
    assert {"httpx2", "pydantic"} <= imported
    assert not imported & HEAVY


@pytest.mark.parametrize("module", ["kotrain", "kotrain.cli"])
def test_import_of_module_loads_no_package(module):
    assert not imported_by(f"import {module}") & {*HEAVY, "httpx2", "pydantic", "rich", "typer"}


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "--help"], ["up", "--help"], ["data", "add", "--help"]])
def test_help_loads_neither_client_nor_server(arguments):
    code = f"sys.argv = ['kotrain', *{arguments!r}]\nfrom kotrain.cli import main\ntry: main()\nexcept SystemExit: pass"
    imported = imported_by(code)
    assert "rich" in imported
    assert not imported & {*HEAVY, "httpx2", "alembic", "matplotlib"}
    assert arguments != ["--help"] or "pydantic" not in imported  # typer needs it to parse arguments


def test_works_without_server_packages():
    code = WITHOUT.format(missing=HEAVY, arguments=["version"]) + "from kotrain.cli import main; main()"
    process = run(code)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["httpx2", "pydantic", "typer", "rich"])
def test_console_script_names_missing_package(missing):
    process = run(WITHOUT.format(missing={missing}, arguments=["jobs"]) + "from kotrain.cli import main; main()")
    assert process.returncode == 1
    assert process.stderr == f"kotrain: the command line needs the package {missing}; {INSTALL_SDK}\n"


def test_sdk_packages_are_those_of_the_extra():
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    extra = pyproject["project"]["optional-dependencies"]["sdk"]
    assert {requirement.partition(">=")[0] for requirement in extra} == set(cli.SDK_PACKAGES)


def test_missing_module_that_no_extra_brings_is_a_traceback():
    process = run(WITHOUT.format(missing={"webbrowser"}, arguments=["jobs"]) + "from kotrain.cli import main; main()")
    assert process.stderr.startswith("Traceback")
    assert process.stderr.endswith("ModuleNotFoundError: No module named 'webbrowser'\n")


@pytest.mark.parametrize(
    ("command", "missing"), [("api", "uvicorn"), ("migrate", "alembic"), ("doctor", "psycopg"), ("worker", "celery")]
)
def test_server_command_names_missing_package(command, missing, monkeypatch):
    monkeypatch.setenv("KOTRAIN_DATABASE_URL", "postgresql+psycopg://127.0.0.1:1/nowhere")
    process = run(WITHOUT.format(missing={missing}, arguments=[command]) + "from kotrain.cli import main; main()")
    assert process.returncode == 1
    assert process.stderr == f"kotrain: `kotrain {command}` needs the package {missing}; {INSTALL_ALL}\n"


def test_import_of_name_names_missing_package():
    process = run(WITHOUT.format(missing={"httpx2"}, arguments=[]) + "from kotrain import Client")
    assert process.stderr.endswith(f"ImportError: kotrain.Client needs the package httpx2; {INSTALL_SDK}\n")


def test_server_command_names_missing_server():
    process = run(WITHOUT.format(missing=HEAVY, arguments=["up"]) + "from kotrain.cli import main; main()")
    assert process.returncode == 1
    assert process.stderr == f"kotrain: `kotrain up` needs the server; {INSTALL_ALL}\n"


def test_help_lists_server_commands_if_server_is_installed():
    with_server = run(WITHOUT.format(missing=set(), arguments=["--help"]) + "from kotrain.cli import main; main()")
    without = run(WITHOUT.format(missing=HEAVY, arguments=["--help"]) + "from kotrain.cli import main; main()")
    assert "migrate" in with_server.stdout
    assert "migrate" not in without.stdout
    assert "submit" in without.stdout
