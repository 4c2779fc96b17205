"""Public text is plain technical English: phrases that technical documentation avoids fail the build."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from service.app import create_app

ROOT = Path(__file__).parents[2]
PHRASES = re.compile(
    r"""
    \btold\b(?!\ apart)
    | \bwhoever\b | \b(?:some|any)body\b | (?<!')\bnobody\b
    | \bso\ (?:many|much)\b | \bso\ long\b(?!\ as\b)
    | \b(?:goes|went|gone)\ on\b | \bof\ its\ own\ accord\b
    | ;\ there\ (?:is|are)\b
    | \bis\ no\ (?:backup|budget|finite|format|image|name|number|text)\b
    | \bknows\ nothing\b | \bis\ not\ known\b | \bno\ such\ thing\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def phrases_in(text: str) -> list[str]:
    """The avoided phrases that occur in a text."""
    return [match[0] for match in PHRASES.finditer(text)]


def report(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Each phrase with its place and text."""
    return [f"{place}: {phrase!r} in {text!r}" for place, text in texts for phrase in phrases_in(text)]


def files(*patterns: str) -> Iterator[tuple[str, str]]:
    """Yield path and content of each file that matches a pattern."""
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        yield str(path.relative_to(ROOT)), path.read_text()


def constants(node: ast.AST) -> str:
    """The text of a string expression, with `{}` for each value that is formatted into it."""
    parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return "{}".join(parts)


ERRORS = {"FieldError", "field", "unfit", "BadParameter", "error", "warning"}
"""Functions that create a message for users, besides `raise`."""


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield texts of errors, help of options, descriptions of fields, and docstrings of commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield constants(node.exc)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ERRORS:
                yield constants(node)
            yield from (constants(keyword.value) for keyword in node.keywords if keyword.arg in ("help", "description"))
        elif isinstance(node, ast.FunctionDef) and any(
            "command" in ast.dump(decorator) for decorator in node.decorator_list
        ):
            yield ast.get_docstring(node) or ""


def descriptions(node: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield all summaries and descriptions of an OpenAPI document, with their places."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("summary", "description") and isinstance(value, str):
                yield place, value
            else:
                yield from descriptions(value, f"{place}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from descriptions(value, f"{place}/{index}")


def test_openapi_is_plain() -> None:
    assert report(descriptions(create_app().openapi())) == []


def test_messages_of_python_are_plain() -> None:
    modules = files("service/**/*.py", "ko/**/*.py", "kotrain/**/*.py", "workers/**/*.py")
    assert report((path, text) for path, source in modules for text in messages(ast.parse(source))) == []


def test_strings_of_javascript_are_plain() -> None:
    comment = re.compile(r"/\*[\s\S]*?\*/|(?:^|(?<=\n))\s*//.*")
    string = re.compile(r'"[^"\n]*"|`[^`]*`')
    modules = files("service/dashboard/static/**/*.js")
    assert report((path, text) for path, source in modules for text in string.findall(comment.sub("", source))) == []


def test_documents_are_plain() -> None:
    pages = files("README.md", "docs/*.md")
    assert report((path, line) for path, page in pages for line in page.splitlines()) == []


@pytest.mark.parametrize(
    "text",
    ["'x' is not known", "unknown; there is adam, ko", "'pdf' is no format", "one of so many", "it goes on", "as told"],
)
def test_matches_avoided_phrases(text: str) -> None:
    assert phrases_in(text)


@pytest.mark.parametrize("text", ["cannot be told apart", "there is no difference", "is no longer open", "ko soft"])
def test_does_not_match_ordinary_english(text: str) -> None:
    assert not phrases_in(text)
