"""The console script as a process: Ctrl-C at any time, and output that cannot be written."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

DEFAULT = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""As at the start of Python, unless a shell has started it in the background."""
COMMAND = [sys.executable, "-m", "kotrain"]


def test_interrupt_before_the_command_ends_the_process_at_once() -> None:
    code = f"{DEFAULT}; import kotrain.cli; os.kill(os.getpid(), signal.SIGINT)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("place", ["kotrain.commands.run", "typer.Typer.__call__"])
def test_interrupt_is_one_line(place: str) -> None:
    code = f"""
{DEFAULT}
import sys
from unittest import mock
import kotrain.cli, kotrain.commands
sys.argv = ["kotrain", "catalog"]
with mock.patch("{place}", side_effect=lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)):
    kotrain.cli.main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "kotrain: interrupted\n")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["version"]])
def test_full_output_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "kotrain: cannot write the output (No space left on device)\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_any_encoding(encoding: str) -> None:
    environment = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    result = subprocess.run([*COMMAND, "--help"], env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
