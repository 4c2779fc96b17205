"""What other users wrote reaches the terminal without characters that control it."""

import json

from pydantic import BaseModel
from rich.text import Text

from kotrain import output, tables

HOSTILE = "a\x1b]0;title\x07b\x7fc\x9bd\u202ee\u2066f"
CONTROLS = set("\x1b\x07\x7f\x9b\u202e\u2066")


class Answer(BaseModel):
    text: str


def test_messages_are_printable(capsys):
    output.complain(HOSTILE)
    output.note("two\nlines\tand é, 中, \u200c")
    printed = capsys.readouterr().err
    assert not CONTROLS & set(printed)
    assert printed.endswith("two\nlines\tand é, 中, \u200c\n")


def test_tables_are_printable(capsys):
    table = tables.plain("name", "text")
    table.add_row(HOSTILE, Text(HOSTILE))
    tables.console().print(table, HOSTILE)
    assert not CONTROLS & set(capsys.readouterr().out)


def test_json_has_the_same_content_escaped(capsys):
    output.say(Answer(text=HOSTILE))
    printed = capsys.readouterr().out
    assert not CONTROLS & set(printed)
    assert json.loads(printed) == {"text": HOSTILE}
