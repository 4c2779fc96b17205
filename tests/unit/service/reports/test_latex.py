"""The LaTeX report: set by pdflatex, whatever users call things."""

import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.reports import latex
from service.reports.formats import render
from service.specs.states import ComparisonStatus
from tests.unit.service.reports.studies import TASKS, missing_run, study, waiting

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""
PROGRAM = shutil.which("pdflatex")
INSTALL = "this test needs pdflatex: apt-get install texlive-latex-recommended"

# What the request's pattern for labels lets pass, and what it does not but other texts have.
NASTY = [
    "a & b % c $ d # e _ f { g } h ~ i ^ j \\ k",
    r"\input{/etc/passwd}",
    "[optional] argument",
    "* star",
    "-- --- << >> '' ,, ?` !` ``",
    '"quoted" | piped',
    "ÄÖÜ ß émigré Łódź ŐŰ ïÿ",
    "αβγ ΔΩ µ ϑ",
    "优化器 学习率=0.01",
    "Донецкий оптимизатор",
    "x × y ± z … – — ≤ ∞",
    "tab\tline\nnul\0bell\a end",
    "e\N{COMBINING ACUTE ACCENT} ﬁ ½",
]


def set_by_pdflatex(text: str, folder: Path) -> str:
    """The log; fails where pdflatex does."""
    assert PROGRAM, INSTALL
    (folder / "report.tex").write_text(DOCUMENT % text, encoding="utf-8")
    line = [PROGRAM, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "report.pdf").stat().st_size > 1000
    return (folder / "report.log").read_text(errors="replace")


class TestEscaping:
    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("50 % & $1 #2 a_b", r"50 \% \& \$1 \#2 a\_b"),
            ("{x} ~ ^ \\", r"\{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"),
            ("a--b", "a-{}-b"),
            ("naïve", "naïve"),
            ("e\N{COMBINING ACUTE ACCENT}", "é"),
            ("αΔ", r"$\alpha$$\Delta$"),
            ("ễ", "e"),
            ("中", r"\texttt{U+4E2D}"),
            ("a\nb", "a b"),
        ],
    )
    def test_text_stands_for_itself(self, text: str, escaped: str) -> None:
        assert latex.escaped(text) == escaped

    def test_every_letter_of_the_encoding_can_be_set(self, tmp_path: Path) -> None:
        letters = sorted(latex.T1 | latex.SPECIAL.keys() | set(string.printable))
        set_by_pdflatex("\n\n".join(latex.escaped(f"x{letter}y {letter}") for letter in letters), tmp_path)

    def test_nasty_text_is_harmless(self, tmp_path: Path) -> None:
        rows = r" \\".join(f"{latex.escaped(text)} & 1" for text in NASTY)
        log = set_by_pdflatex(rf"\begin{{tabular}}{{p{{8cm}}l}}{rows}\end{{tabular}}", tmp_path)
        assert "passwd" not in log


def with_labels(labels: list[str]) -> Any:
    """A comparison of optimizers that are called so, also where a request would be refused."""
    optimizers = [
        {"name": "adam", "params": {"lr": 0.001 * (number + 1)}, "label": f"o{number}"} for number in range(len(labels))
    ]
    answer = study(optimizers=optimizers, diverged={(0, 1): 1}).answer
    text = answer.model_dump_json()
    for number, label in enumerate(labels):
        text = text.replace(f'"o{number}"', __import__("json").dumps(label))
    return type(answer).model_validate_json(text)


class TestReport:
    def test_is_set_with_nasty_labels(self, tmp_path: Path) -> None:
        answer = with_labels(NASTY)
        set_by_pdflatex(render("latex", answer, {}).body, tmp_path)

    def test_says_what_it_needs_and_what_it_is(self) -> None:
        answer = study(name="ours % theirs\\end{document}").answer
        first, needs, *rest = render("latex", answer, {}).body.splitlines()
        assert str(answer.id) in first
        assert first.startswith("%")
        assert r"\usepackage{booktabs}" in needs
        assert not [line for line in rest if r"\end{document}" in line]

    def test_has_a_column_for_each_of_few_tasks(self, tmp_path: Path) -> None:
        body = render("latex", study().answer, {}).body
        assert body.count(r"\begin{table}") == 1
        assert r"\begin{tabular}{lcc}" in body
        assert r"ko soft (adam) & \textbf{96.67 $\pm$ 0.17} & " in body
        assert "two-sided paired t tests" in body.rpartition(r"\end{table}")[2]
        set_by_pdflatex(body, tmp_path)

    def test_has_a_table_for_each_of_many_tasks(self, tmp_path: Path) -> None:
        tasks = [{**TASKS[0], "batch_size": 16 + number} for number in range(64)]
        body = render("latex", study(tasks=tasks, seeds=3).answer, {}).body
        assert body.count(r"\begin{table}") == 64
        set_by_pdflatex(body, tmp_path)

    def test_bold_are_the_best_and_those_not_significantly_behind(self) -> None:
        answer = study(tasks=TASKS[:1]).answer
        (task,) = answer.tasks
        behind = {pair.b for pair in task.pairs if pair.significant}
        assert behind
        lines = render("latex", answer, {}).body.splitlines()
        for group in task.groups:
            (line,) = [line for line in lines if line.strip().startswith(f"{group.label} &")]
            assert (r"\textbf" in line) == (group.label not in behind)

    def test_diverged_runs_are_counted(self) -> None:
        body = render("latex", study(diverged={(0, 1): 2}).answer, {}).body
        assert r"$^{\dagger 2}$" in body
        assert r"$k$ runs diverged, counting as 10~\%" in body

    def test_without_a_score_those_with_diverged_runs_do_not_lead(self) -> None:
        answer = study(metric="test_loss", seeds=6, diverged={(0, 1): 2}).answer
        assert answer.tasks[0].groups[0].diverged
        body = render("latex", answer, {}).body
        (line,) = [line for line in body.splitlines() if line.strip().startswith("ko soft (adam) &")]
        assert not line.partition("&")[2].strip().startswith(r"\textbf")
        assert "are not in the mean" in body

    def test_without_tests_nothing_is_bold(self, tmp_path: Path) -> None:
        body = render("latex", study(seeds=1).answer, {}).body
        assert r"\textbf" not in body
        assert "no pair could be tested" in body
        set_by_pdflatex(body, tmp_path)

    def test_where_there_is_no_verdict_nothing_is_bold(self) -> None:
        answer = study(tasks=TASKS[:1]).answer
        cancelled = answer.model_copy(update={"status": ComparisonStatus.CANCELLED})
        (task,) = answer.tasks
        short = answer.model_copy(
            update={"tasks": [task.model_copy(update={"missing": [missing_run("adam", "cancelled")]})]}
        )
        for one, why in ((cancelled, "the comparison was cancelled"), (short, "planned runs are missing")):
            body = render("latex", one, {}).body
            assert r"\textbf" not in body
            assert f"No mean is bold because {why}." in body

    def test_what_is_not_there_yet_is_a_dash(self, tmp_path: Path) -> None:
        answer = waiting()
        assert answer.status is ComparisonStatus.RUNNING
        body = render("latex", answer, {}).body
        assert "adam & -- & --" in body
        assert "still running" in body
        assert "None" not in body
        set_by_pdflatex(body, tmp_path)
