"""The LaTeX report: booktabs tables for a paper, followed by the methods paragraph."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from service.comparisons.answers import ComparisonAnswer, GroupView, TaskAnswer
from service.reports.lookup import lacks_runs, leaders, planned
from service.reports.sources import Excerpt, UploadedFile, excerpts
from service.reports.wording import MINUS, Scale, moment
from service.specs.text import counted, listed

MAX_COLUMNS = 4
"""Maximum number of tasks in one table; with more, each task has its own table."""

MAX_FLOATS = 16
"""Tables between page breaks: LaTeX holds at most 18 unplaced floats, 52 in newer versions."""

SOURCE_WIDTH = 78
"""Characters of a line of source code, which fit into the column of an article."""


def document_part(answer: ComparisonAnswer, files: Sequence[UploadedFile] = ()) -> str:
    """Comments with the required packages, the tables, the methods, and an appendix with the source of uploaded code.

    For pdflatex with inputenc utf8 and fontenc T1.
    """
    head = [
        f"% Comparison {answer.id}: {_comment(answer.name)}",
        r"% Needs: \usepackage{booktabs}, \usepackage[T1]{fontenc} and, before 2018, \usepackage[utf8]{inputenc}",
        r"% To shrink a wide table to the column, wrap it in \resizebox{\linewidth}{!}{...} of the graphicx package.",
    ]
    if len(answer.tasks) <= MAX_COLUMNS:
        tables = [_table_of_all(answer)]
    else:
        tables = [_table_of_one(answer, task, number) for number, task in enumerate(answer.tasks, 1)]
        tables[MAX_FLOATS - 1 :: MAX_FLOATS] = [
            f"{table}\\clearpage\n" for table in tables[MAX_FLOATS - 1 :: MAX_FLOATS]
        ]
    return "\n".join([*head, "", *tables, escaped(answer.methods), "", *_appendix(files)])


# --- tables ----------------------------------------------------------------------------------------------------------


def _table_of_all(answer: ComparisonAnswer) -> str:
    """Optimizers in rows, in the order of the plan; tasks in columns."""
    columns = [_means(answer, task) for task in answer.tasks]
    names = dict.fromkeys(label for column in columns for label in column)
    planned_names = [str(optimizer["label"]) for optimizer in answer.plan.optimizers]
    rows = [
        [escaped(name), *(column.get(name, "--") for column in columns)]
        for name in sorted(names, key=lambda name: planned_names.index(name) if name in planned_names else len(names))
    ]
    head = ["Optimizer", *(escaped(task.label) for task in answer.tasks)]
    return _table("l" + "c" * len(columns), head, rows, _caption(answer, answer.tasks), f"tab:{answer.id}")


def _table_of_one(answer: ComparisonAnswer, task: TaskAnswer, number: int) -> str:
    """The optimizers of a task, best mean first, with more columns than the table of all tasks."""
    scale = Scale(task.metric)
    decimals = scale.decimals(group.sd for group in task.groups)
    means = _means(answer, task)
    rows = [
        [
            escaped(group.label),
            str(group.n),
            means[group.label],
            _plain(scale.interval(group.interval, decimals).replace(" to ", " -- ")),
            _plain(scale.text(group.best, decimals)),
        ]
        for group in task.groups
    ]
    head = ["Optimizer", "$n$", r"mean $\pm$ sd", r"95~\% interval", "best run"]
    return _table("lcccc", head, rows, _caption(answer, [task]), f"tab:{answer.id}:{number}")


def _table(alignment: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    lines = [" & ".join(cells) + r" \\" for cells in (head, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{{label}}}",
            rf"  \begin{{tabular}}{{{alignment}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _means(answer: ComparisonAnswer, task: TaskAnswer) -> dict[str, str]:
    """Label -> mean and standard deviation, bold for leaders."""
    decimals = Scale(task.metric).decimals(group.sd for group in task.groups)
    bold = leaders(answer, task)
    return {
        group.label: _mean(group, Scale(task.metric), decimals, is_bold=group.label in bold) for group in task.groups
    }


def _mean(group: GroupView, scale: Scale, decimals: int, *, is_bold: bool) -> str:
    if group.mean is None:
        text = "--"
    else:
        text = _plain(scale.text(group.mean, decimals))
        if group.sd is not None:
            text += rf" $\pm$ {_plain(scale.text(group.sd, decimals))}"
    if is_bold:
        text = rf"\textbf{{{text}}}"
    return text + (rf"$^{{\dagger {group.diverged}}}$" if group.diverged else "")


def _plain(text: str) -> str:
    """A number with a LaTeX minus sign; a dash if it is empty."""
    return text.replace(MINUS, "$-$") or "--"


def _caption(answer: ComparisonAnswer, tasks: Sequence[TaskAnswer]) -> str:
    scale = Scale(answer.plan.metric)
    groups = [group for task in tasks for group in task.groups]
    where = f" on {escaped(tasks[0].label)}" if len(tasks) == 1 else ""
    unit = r" in \%" if scale.is_share else ""
    seeds = sorted({group.n for group in groups if group.n})
    over = (
        f" over {counted(seeds[0], 'seed')}"
        if len(seeds) == 1
        else f" over {seeds[0]} to {seeds[-1]} seeds"
        if seeds
        else ""
    )
    sentences = [rf"{escaped(scale.words).capitalize()}{unit}{where}, mean $\pm$ standard deviation{over}."]
    if answer.status == "running":
        sentences.append("Preliminary: the comparison is still running.")
    if any(leaders(answer, task) for task in tasks):
        sentences.append(
            r"Bold: the best mean and all means that are not significantly worse than any other (family-wise error "
            r"rate 5~\%)."
        )
    else:
        sentences.append(f"No mean is bold because {_why_nothing_leads(answer, tasks)}.")
    if any(group.diverged for group in groups):
        sentences.append(rf"$^{{\dagger k}}$: $k$ runs diverged{_diverged_scores(answer, tasks, scale)}.")
    return " ".join(sentences)


def _why_nothing_leads(answer: ComparisonAnswer, tasks: Sequence[TaskAnswer]) -> str:
    if answer.status == "cancelled":
        return "the comparison was cancelled"
    return "planned runs are missing" if any(map(lacks_runs, tasks)) else "no pair could be tested"


def _diverged_scores(answer: ComparisonAnswer, tasks: Sequence[TaskAnswer], scale: Scale) -> str:
    declared: set[float | None] = {planned(answer, task).get("diverged_score") for task in tasks}
    scores = [
        escaped(scale.with_percent(score)).replace(" ", "~")
        for score in sorted(score for score in declared if score is not None)
    ]
    if None in declared:
        return " and are not in the mean"
    return f", {'each counting' if len(tasks) == 1 else 'counting'} as {listed(scores, 'or')}"


# --- source code -----------------------------------------------------------------------------------------------------


def _appendix(files: Sequence[UploadedFile]) -> list[str]:
    """The source of each file, as ordinary text: a verbatim environment ends where a source says so."""
    if not files:
        return []
    return [r"\section*{Source of uploaded code}", "", *map(_source, excerpts(files))]


def _source(excerpt: Excerpt) -> str:
    of = excerpt.of
    digest = rf"{of.sha256[:32]}\allowbreak {of.sha256[32:]}"
    about = f"{escaped(excerpt.name)}, uploaded {moment(of.created_at)}, SHA-256 {digest}."
    return "\n".join(
        [
            rf"\subsection*{{{escaped(of.version)}}}",
            f"{about} {escaped(excerpt.remark)}".strip(),
            "",
            r"\begingroup\footnotesize\ttfamily\raggedright\setlength{\parindent}{0pt}\setlength{\parskip}{0pt}",
            *(row for line in excerpt.lines for row in _rows(line)),
            r"\endgroup",
            "",
        ]
    )


def _rows(line: str) -> Iterator[str]:
    """A line of source code as paragraphs; those after the first are marked as continuations."""
    for start in range(0, max(1, len(line)), SOURCE_WIDTH):
        mark = r"$\hookrightarrow$" if start else r"\mbox{}"
        yield f"{mark}{escaped(line[start : start + SOURCE_WIDTH]).replace(' ', '~')}\\par"


# --- text from users -------------------------------------------------------------------------------------------------

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after \\ it would open an optional argument
    "]": "{]}",
    "*": "{*}",  # after \\ it would ask for no page break
    "|": r"\textbar{}",
    MINUS: "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "\N{NO-BREAK SPACE}": "~",
    "\N{MICRO SIGN}": r"$\mu$",
}
GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    ), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΥΦΨΩ", (
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
    ), strict=True)),
}  # fmt: skip
SPECIAL |= {letter: rf"$\{name}$" for letter, name in GREEK.items()}
# Characters of the T1 encoding besides ASCII.
T1 = set(
    "¡¿«»‘’‚“”„‹›§£"
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ"
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğĹĺĽľŁłŃńŇňŊŋŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽžİıĲĳ"
)
LIGATURES = re.compile(r"(?<=([-<>,'?!]))(?=[-<>,'`])")


def escaped(text: str) -> str:
    """Text escaped for LaTeX; letters that pdflatex cannot set become their base letter or code point."""
    text = " ".join("".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text).split(" "))
    return "".join(_sign(sign) for sign in LIGATURES.sub("\0", unicodedata.normalize("NFC", text)))


def _sign(sign: str) -> str:
    if sign == "\0":
        return "{}"
    if sign in SPECIAL:
        return SPECIAL[sign]
    if sign.isascii() or sign in T1:
        return sign
    plain = "".join(part for part in unicodedata.normalize("NFKD", sign) if part.isascii())
    return "".join(map(_sign, plain)) if plain else rf"\texttt{{U+{ord(sign):04X}}}"


def _comment(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())
