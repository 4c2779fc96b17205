"""jsonl files: a line is {"text": ..., "label": ...}."""

from __future__ import annotations

import json
from array import array
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from service.datasets.uploads.records import ClassNames, Records, Room, unfit

MAX_LINE_BYTES = 2**20
BOM = b"\xef\xbb\xbf"
TO_UTF8 = "convert it, for example from Latin-1: iconv -f LATIN1 -t UTF-8 FILE > NEW"


def read_jsonl(path: Path, max_bytes: int) -> Records:
    """The texts of a file, read line by line. Raises Invalid with the line's number."""
    names, room = ClassNames(), Room(max_bytes)
    texts, labels = [], array("q")
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise unfit(f"line {number} has more than {MAX_LINE_BYTES:,} bytes, which is the limit")
            line = line.removeprefix(BOM) if number == 1 else line
            if line.strip():
                text, label = _record(line, number)
                room.take_texts([text])
                texts.append(text)
                labels.append(names.number(label, partial(_line, number)))
    if not texts:
        raise unfit("the file is empty")
    classes, numbers = names.in_order(np.frombuffer(labels, np.int64))
    return Records("text", texts, numbers, classes)


def _record(line: bytes, number: int) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise unfit(f"line {number} is not UTF-8; {TO_UTF8}") from error
    except (ValueError, RecursionError) as error:
        raise unfit(f"line {number} is not JSON: {str(error)[:100]}") from error
    if not isinstance(record, dict) or not record.keys() >= {"text", "label"}:
        raise unfit(f'line {number} is not an object with "text" and "label"; write {{"text": "...", "label": "..."}}')
    if not isinstance(record["text"], str):
        raise unfit(f'line {number}: "text" is not a string')
    return _checked(record["text"], number), _label(record["label"], number)


def _line(number: int) -> str:
    return f"line {number}"


def _label(label: Any, number: int) -> str:
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise unfit(f'line {number}: "label" is not an integer or a string')
    return str(label)


def _checked(text: str, number: int) -> str:
    """The text. Raises Invalid if it is empty or cannot be encoded."""
    if not text.strip():
        raise unfit(f"{_line(number)}: the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise unfit(f"{_line(number)}: the text has an unpaired surrogate") from error
    return text
