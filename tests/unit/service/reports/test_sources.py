"""The appendix with the source of uploaded code, which is hostile text."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.reports.rendering import render
from service.reports.sources import MAX_CHARACTERS, MAX_CHARACTERS_IN_ALL, UploadedFile, excerpts
from tests.unit.service.reports.studies import study
from tests.unit.service.reports.test_latex import UNUSUAL_TEXTS, typeset
from tests.unit.service.reports.test_page import Page

HOSTILE = "\n".join(
    [
        '"""</pre></section><script>alert(1)</script> &amp; <img src=x onerror=alert(1)>',
        r"\end{verbatim}\input{/etc/passwd}\endgroup\end{document} $$ ^^5c ^^M % {",
        "```",
        "{{ 7 * 7 }} {% raw %}",
        "if a:\t# \N{RIGHT-TO-LEFT OVERRIDE}tidua\N{POP DIRECTIONAL ISOLATE}\0\x1b[31m\f",
        *UNUSUAL_TEXTS,
        "",
        "x = " + "long " * 100,
        '"""',
        "    indented = 1\r\nlast = 2\r",
    ]
)
DIGEST = "3f2a9c71" * 8


def file(source: str, version: str = "ada/mine@3f2a9c71") -> UploadedFile:
    return UploadedFile(
        version, DIGEST, "<b>mine\N{RIGHT-TO-LEFT OVERRIDE}.py", datetime(2026, 5, 4, tzinfo=UTC), source
    )


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.reports.page.MAX_DRAWN", 0)


class TestExcerpts:
    def test_shows_what_is_invisible(self) -> None:
        (excerpt,) = excerpts([file("if a:\n\tb  # \N{RIGHT-TO-LEFT OVERRIDE}\N{ZERO WIDTH SPACE}\0 é\r\nc\n")])
        assert excerpt.lines == ["if a:", "        b  # \\u202e\\u200b\\x00 é", "c"]
        assert (excerpt.name, excerpt.remark) == ("<b>mine\\u202e.py", "")

    @pytest.mark.parametrize("sign", "\u034f\u115f\u2800\u3164\ufe0f\uffa0\U000e0101")
    def test_shows_printable_characters_that_show_nothing(self, sign: str) -> None:
        (excerpt,) = excerpts([file(f"a{sign}b")])
        assert excerpt.lines == [f"a{sign.encode('unicode_escape').decode()}b"]

    def test_says_what_it_leaves_out(self) -> None:
        line = "x" * 99 + "\n"
        every, *rest = excerpts([file(line * 2_600, f"ada/mine@0000000{number}") for number in range(5)])
        assert len(every.lines) == MAX_CHARACTERS // 100
        assert every.remark == "655 of 2,601 lines are shown; GET /v1/code/ada/mine@00000000 has the whole file."
        assert sum(len(excerpt.lines) * 100 for excerpt in (every, *rest)) <= MAX_CHARACTERS_IN_ALL
        assert rest[-1].remark.startswith("1 of 2,601 lines")


class TestPage:
    def test_escapes_hostile_source(self, without_figures: None) -> None:
        data = study(seeds=1)
        page = Page(render("html", data.answer, data.curves, [file(HOSTILE)]).body)
        assert not page.of("script")
        assert not page.of("img")
        (source,) = page.of("pre")
        assert source["aria-label"] == "Source of ada/mine@3f2a9c71"
        shown = "".join(page.texts)
        for line in excerpts([file(HOSTILE)])[0].lines:
            assert line in shown
        assert all(text in page.text for text in (DIGEST, "2026-05-04", "<b>mine\\u202e.py"))
        assert {"href": "#sources"} in page.of("a")

    def test_has_no_appendix_without_uploaded_code(self, without_figures: None) -> None:
        data = study(seeds=1)
        assert "Source of uploaded code" not in render("html", data.answer, data.curves).body


class TestLatex:
    def test_typesets_hostile_source(self, tmp_path: Path) -> None:
        body = render("latex", study(seeds=1).answer, {}, [file(HOSTILE), file(HOSTILE, "ada/mine@00000000")]).body
        log = typeset(body, tmp_path)
        assert "passwd" not in log
        assert body.count("last~=~2\\par") == 2, "the second source follows the end of the first"

    def test_other_formats_have_no_source(self) -> None:
        answer = study(seeds=1).answer
        for format in ("csv", "json"):
            assert render(format, answer, {}, [file(HOSTILE)]) == render(format, answer, {})
