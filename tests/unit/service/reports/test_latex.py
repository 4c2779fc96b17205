"""The LaTeX report: pdflatex sets it, whatever the labels."""

import json
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.reports import latex
from service.reports.rendering import render
from service.specs.states import ComparisonStatus
from tests.unit.service.reports.studies import TASKS, missing_run, study
from tests.unit.service.reports.unfinished import unfinished_answer

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""
PDFLATEX = shutil.which("pdflatex")
INSTALL = "this test needs pdflatex: apt-get install texlive-latex-recommended"

# Labels that a request accepts, and texts that it rejects in labels but accepts elsewhere.
UNUSUAL_TEXTS = [
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


def typeset(text: str, folder: Path) -> str:
    """Typeset a document; return the log, or fail with pdflatex."""
    assert PDFLATEX, INSTALL
    (folder / "report.tex").write_text(DOCUMENT % text, encoding="utf-8")
    line = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"]
    process = subprocess.run(line, cwd=folder, capture_output=True, text=True, errors="replace", timeout=60)
    assert process.returncode == 0, process.stdout[-2000:]
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
    def test_escapes_text(self, text: str, escaped: str) -> None:
        assert latex.escaped(text) == escaped

    def test_typesets_each_supported_character(self, tmp_path: Path) -> None:
        letters = sorted(latex.T1 | latex.SPECIAL.keys() | set(string.printable))
        typeset("\n\n".join(latex.escaped(f"x{letter}y {letter}") for letter in letters), tmp_path)

    def test_typesets_unusual_texts(self, tmp_path: Path) -> None:
        rows = r" \\".join(f"{latex.escaped(text)} & 1" for text in UNUSUAL_TEXTS)
        log = typeset(rf"\begin{{tabular}}{{p{{8cm}}l}}{rows}\end{{tabular}}", tmp_path)
        assert "passwd" not in log


def with_labels(labels: list[str]) -> Any:
    """A comparison of optimizers with these labels, some of which a request would reject."""
    optimizers = [
        {"name": "adam", "params": {"lr": 0.001 * (number + 1)}, "label": f"o{number}"} for number in range(len(labels))
    ]
    answer = study(optimizers=optimizers, diverged={(0, 1): 1}).answer
    text = answer.model_dump_json()
    for number, label in enumerate(labels):
        text = text.replace(f'"o{number}"', json.dumps(label))
    return type(answer).model_validate_json(text)


class TestReport:
    def test_typesets_unusual_labels(self, tmp_path: Path) -> None:
        answer = with_labels(UNUSUAL_TEXTS)
        typeset(render("latex", answer, {}).body, tmp_path)

    def test_starts_with_id_and_required_package(self) -> None:
        answer = study(name="ours % theirs\\end{document}").answer
        first, needs, *rest = render("latex", answer, {}).body.splitlines()
        assert str(answer.id) in first
        assert first.startswith("%")
        assert r"\usepackage{booktabs}" in needs
        assert not [line for line in rest if r"\end{document}" in line]

    def test_few_tasks_are_columns_of_one_table(self, tmp_path: Path) -> None:
        body = render("latex", study().answer, {}).body
        assert body.count(r"\begin{table}") == 1
        assert r"\begin{tabular}{lcc}" in body
        assert r"ko soft (adam) & \textbf{96.67 $\pm$ 0.17} & " in body
        assert "two-sided paired t tests" in body.rpartition(r"\end{table}")[2]
        typeset(body, tmp_path)

    def test_many_tasks_have_a_table_each(self, tmp_path: Path) -> None:
        tasks = [{**TASKS[0], "batch_size": 16 + number} for number in range(64)]
        body = render("latex", study(tasks=tasks, seeds=3).answer, {}).body
        assert body.count(r"\begin{table}") == 64
        typeset(body, tmp_path)

    def test_best_and_not_significantly_worse_means_are_bold(self) -> None:
        answer = study(tasks=TASKS[:1]).answer
        (task,) = answer.tasks
        behind = {pair.b for pair in task.pairs if pair.significant}
        assert behind
        lines = render("latex", answer, {}).body.splitlines()
        for group in task.groups:
            (line,) = [line for line in lines if line.strip().startswith(f"{group.label} &")]
            assert (r"\textbf" in line) == (group.label not in behind)

    def test_counts_diverged_runs(self) -> None:
        body = render("latex", study(diverged={(0, 1): 2}).answer, {}).body
        assert r"$^{\dagger 2}$" in body
        assert r"$k$ runs diverged, counting as 10~\%" in body

    def test_loss_with_diverged_runs_is_not_bold(self) -> None:
        answer = study(metric="test_loss", seeds=6, diverged={(0, 1): 2}).answer
        assert answer.tasks[0].groups[0].diverged
        body = render("latex", answer, {}).body
        (line,) = [line for line in body.splitlines() if line.strip().startswith("ko soft (adam) &")]
        assert not line.partition("&")[2].strip().startswith(r"\textbf")
        assert "are not in the mean" in body

    def test_no_mean_is_bold_without_tests(self, tmp_path: Path) -> None:
        body = render("latex", study(seeds=1).answer, {}).body
        assert r"\textbf" not in body
        assert "no pair could be tested" in body
        typeset(body, tmp_path)

    def test_no_mean_is_bold_without_verdict(self) -> None:
        answer = study(tasks=TASKS[:1]).answer
        cancelled = answer.model_copy(update={"status": ComparisonStatus.CANCELLED})
        (task,) = answer.tasks
        incomplete = answer.model_copy(
            update={"tasks": [task.model_copy(update={"missing": [missing_run("adam", "cancelled")]})]}
        )
        for untested, reason in ((cancelled, "the comparison was cancelled"), (incomplete, "planned runs are missing")):
            body = render("latex", untested, {}).body
            assert r"\textbf" not in body
            assert f"No mean is bold because {reason}." in body

    def test_missing_values_are_dashes(self, tmp_path: Path) -> None:
        answer = unfinished_answer()
        assert answer.status is ComparisonStatus.RUNNING
        body = render("latex", answer, {}).body
        assert "adam & -- & --" in body
        assert "still running" in body
        assert "None" not in body
        typeset(body, tmp_path)
