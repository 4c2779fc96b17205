import json
import subprocess
import sys
from importlib import import_module

import pytest

import kotrain

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
    modules = {"cli", "client", "commands", "comparison_commands", "dataset_commands", "demo", "errors", "findings"}
    modules |= {"first_look", "home", "output", "plugins", "request_body", "studies", "study_commands", "tables"}
    modules |= {"transport", "progress", "public", "TYPE_CHECKING", "Any"}
    assert public - modules == set(kotrain.__all__)
    assert import_module("kotrain.public").__all__ == kotrain.__all__
    assert set(kotrain.__all__) == {
        *("Client", "JobRequest", "JobView", "JobStatus", "Reason", "Summary"),
        *("Metrics", "DryRun", "Catalog", "CompareAnswer", "Leaderboard"),
        *("ComparisonRequest", "ComparisonDryRun", "ComparisonAnswer", "ComparisonStatus"),
        *("KotrainError", "ConnectionFailed", "WaitTimeout", "NotRunning", "ApiError"),
        *("InvalidRequest", "Unauthorized", "Forbidden", "NotFound", "Conflict", "Unavailable"),
    }


def imported_by(code):
    """Top-level packages that are imported once the code has run."""
    done = run(f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)")
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_every_public_name_is_there():
    assert all(getattr(kotrain, name).__name__ == name for name in kotrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kotrain.nothing


def test_import_needs_no_server_and_no_torch():
    imported = imported_by("from kotrain import *")
    assert {"httpx2", "pydantic"} <= imported
    assert not imported & HEAVY


@pytest.mark.parametrize("module", ["kotrain", "kotrain.cli"])
def test_import_of_a_module_imports_no_package(module):
    assert not imported_by(f"import {module}") & {*HEAVY, "httpx2", "pydantic", "rich", "typer"}


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "--help"], ["up", "--help"], ["data", "add", "--help"]])
def test_help_imports_neither_the_client_nor_the_server(arguments):
    code = f"sys.argv = ['kotrain', *{arguments!r}]\nfrom kotrain.cli import main\ntry: main()\nexcept SystemExit: pass"
    imported = imported_by(code)
    assert "rich" in imported
    assert not imported & {*HEAVY, "httpx2", "alembic", "matplotlib"}
    assert arguments != ["--help"] or "pydantic" not in imported  # which typer needs to read arguments


def test_works_where_only_the_sdk_is_installed():
    code = WITHOUT.format(missing=HEAVY, arguments=["version"]) + "from kotrain.cli import main; main()"
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["httpx2", "pydantic", "typer", "rich"])
def test_console_script_says_what_to_install(missing):
    done = run(WITHOUT.format(missing={missing}, arguments=["jobs"]) + "from kotrain.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr == f"kotrain: the command line needs the package {missing}: pip install 'kotrain[sdk]'\n"


def test_import_of_a_name_says_what_to_install():
    done = run(WITHOUT.format(missing={"httpx2"}, arguments=[]) + "from kotrain import Client")
    assert done.stderr.endswith("ImportError: kotrain.Client needs the package httpx2: pip install 'kotrain[sdk]'\n")


def test_server_commands_without_a_server_say_what_to_install():
    done = run(WITHOUT.format(missing=HEAVY, arguments=["up"]) + "from kotrain.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr == "kotrain: `kotrain up` needs the server: pip install 'kotrain[all]'\n"


def test_help_names_the_servers_commands_where_there_is_a_server():
    with_server = run(WITHOUT.format(missing=set(), arguments=["--help"]) + "from kotrain.cli import main; main()")
    without = run(WITHOUT.format(missing=HEAVY, arguments=["--help"]) + "from kotrain.cli import main; main()")
    assert "migrate" in with_server.stdout
    assert "migrate" not in without.stdout
    assert "submit" in without.stdout
