"""Standard streams that a shell has closed, as `kotrain worker >&-` does."""

from __future__ import annotations

from tests.programs import run_forked

PROGRAM = """
import json, os, sys
from service.operations import commands
output = os.dup(1)
for number in range(3):
    os.close(number)
sys.stdout = None
commands._open_standard_streams()
print("to nobody", flush=True)
streams = [[os.readlink(f"/proc/self/fd/{number}"), os.get_inheritable(number)] for number in range(3)]
os.write(output, json.dumps(streams).encode())
"""


def test_closed_streams_are_opened_also_for_child_processes() -> None:
    assert run_forked(PROGRAM) == 3 * [["/dev/null", True]]
