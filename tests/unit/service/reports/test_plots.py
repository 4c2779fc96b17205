"""Figures by themselves: what is in the files, and that they need nothing else."""

import re
import struct
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
import pytest

from service.errors import Conflict
from service.metrics.read import Curve
from service.reports import plot_names, plots
from service.reports.figures import canvas
from service.reports.palette import COLOURS, DARK, GRID, INK, MUTED, PAPER
from service.reports.plot_names import FileOptions
from tests.unit.service.reports.studies import OPTIMIZERS, Made, study

NAMES = [*plot_names.TASK, "tried-2"]
TASK = {"dataset": "digits", "model": "mlp", "budget": {"epochs": 3}}
LIGHT = {*COLOURS, INK, MUTED, GRID, PAPER}


@pytest.fixture(scope="module")
def made() -> Made:
    return study()


def of_task(made: Made, name: str, options: FileOptions) -> bytes:
    return plots.of_task(made.answer, made.answer.tasks[0], made.curves, name, options)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def check_alone(svg: bytes) -> ElementTree.Element:
    """Well-formed, named, described, with a ground, and without anything from elsewhere."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert tags[1:3] == ["title", "desc"]
    assert root[0].text
    assert root[1].text
    assert not {"style", "script", "metadata"} & set(tags)
    images = [element for element in root.iter() if element.tag.endswith("}image")]  # the colours of a bar
    assert all(one.attrib["{http://www.w3.org/1999/xlink}href"].startswith("data:image/png;") for one in images)
    text = svg.decode()
    assert "var(" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    fonts = re.findall(r"font-family: ([^;]+);", text)
    assert set(fonts) == {"'DejaVu Sans', Verdana, sans-serif"}
    return root


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_a_task_stands_alone(made: Made, name: str, theme: plot_names.Theme) -> None:
    svg = of_task(made, name, FileOptions("svg", theme))
    check_alone(svg)
    used = set(re.findall(r"#[0-9a-f]{6}", svg.decode()))
    other = set(DARK.values()) if theme == "light" else LIGHT
    assert not used & other
    assert (PAPER if theme == "light" else DARK[PAPER]) in used


def test_names_and_figures_are_the_same(made: Made) -> None:
    assert plots.TASK.keys() == plot_names.TASK.keys()
    assert list(plot_names.of_task(made.answer.tasks[0])) == NAMES


@pytest.mark.parametrize("name", plot_names.ACROSS)
def test_every_figure_of_all_tasks_stands_alone(made: Made, name: str) -> None:
    check_alone(plots.of_all_tasks(made.answer, name, FileOptions("svg")))


def test_the_key_is_in_the_drawing(made: Made) -> None:
    texts = [element.text for element in check_alone(of_task(made, "curves", FileOptions("svg"))).iter()]
    assert {"adam", "ko soft (adam)", "sgd", "rmsprop lr=0.001"} <= set(texts)


@pytest.mark.parametrize("width", [320, 1361, 4000])
def test_pixels_are_as_many_as_asked_for(made: Made, width: int) -> None:
    assert size(of_task(made, "cost", FileOptions("png", "dark", width)))[0] == width


def test_themes_of_pixels_differ(made: Made) -> None:
    light, dark = (of_task(made, "cost", FileOptions("png", theme, 320)) for theme in ("light", "dark"))
    assert light != dark
    assert size(light) == size(dark)


def test_a_dark_picture_leaves_the_colours_of_others_alone(made: Made) -> None:
    before = of_task(made, "cost", FileOptions("svg"))
    of_task(made, "cost", FileOptions("svg", "dark"))
    with pytest.raises(ZeroDivisionError), canvas.settings(dark=True):
        _ = 1 / 0
    assert of_task(made, "cost", FileOptions("svg")) == before


def test_dark_colours_are_those_of_the_page() -> None:
    css = (files("service.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    dark = css.partition("prefers-color-scheme: dark")[2].partition("}")[0]
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark))
    assert [found[f"s{place}"] for place in range(7)] == [DARK[colour] for colour in COLOURS]
    assert [found[name] for name in ("ink", "muted", "grid", "paper")] == [
        DARK[one] for one in (INK, MUTED, GRID, PAPER)
    ]


def test_letters_that_the_font_lacks() -> None:
    """An SVG keeps them for the reader's fonts; pixels have a question mark."""
    odd = study(optimizers=[{**one, "label": f"学习 {place} <&>"} for place, one in enumerate(OPTIMIZERS)])
    assert "学习 1 <&>" in [element.text for element in check_alone(of_task(odd, "curves", FileOptions("svg"))).iter()]
    assert size(of_task(odd, "curves", FileOptions("png")))[0] == 1360


def test_why_there_is_none(made: Made) -> None:
    given = study(optimizers=[{"name": "adam"}, {"name": "sgd"}], tasks=[TASK])
    with pytest.raises(Conflict, match="no learning rate was tuned"):
        of_task(given, "learning_rates", FileOptions("svg"))
    with pytest.raises(Conflict, match="Mean ranks over all tasks: there is only one task"):
        plots.of_all_tasks(given.answer, "ranks", FileOptions("svg"))
    two = made.answer.model_copy(update={"across": None})
    with pytest.raises(Conflict, match="available once all planned runs have ended"):
        plots.of_all_tasks(two, "ranks", FileOptions("svg"))


# --- of a job --------------------------------------------------------------------------------------------------------


def curve(values: list[float], every: int = 1) -> Curve:
    steps = every * np.arange(1, len(values) + 1)
    return Curve(steps, np.array(values, np.float64), 0.1 * steps)


CURVES = {
    "train_loss": curve([2.0 / step for step in range(1, 3000)]),
    "val_loss": curve([2.0, 1.0, 0.7], 1000),
    "val_accuracy": curve([0.1, 0.5, float("nan")], 1000),
    "lr": curve([0.0, 0.0]),
    "lambda_max": curve([1.0, 2.0]),
    "lambda_max/1.weight": curve([3.0, 4.0]),
    "temperature": curve([float("inf")]),
    "effective_rank": curve([3.0, 2.0]),
    "odd\ufffe\uffff\x01": curve([3.0, 2.0]),
}


SVG = FileOptions("svg")


def of_job(name: str, options: FileOptions = SVG, *, is_log: bool = False, smooth: float = 0.0) -> bytes:
    return plots.of_job("ko", CURVES, name, options, is_log=is_log, smooth=smooth)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loss", "Last values: val_loss 0.7 and train_loss 0.0006669."),
        ("accuracy", "Last values: val_accuracy not finite."),
        ("lambda_max/1.weight", "Last values: lambda_max/1.weight 4."),
        ("diagnostics", "Last values: effective_rank 2 and lambda_max 2."),
    ],
)
def test_curves_of_a_job(name: str, said: str) -> None:
    root = check_alone(of_job(name))
    assert root[1].text == said
    assert (root[0].text or "") in plot_names.of_job(CURVES).values()


def test_the_optimizer_has_its_colour() -> None:
    assert COLOURS[0] in of_job("lambda_max").decode()
    assert COLOURS[1] in plots.of_job("adam", CURVES, "lr", FileOptions("svg"), is_log=False, smooth=0.0).decode()


def test_smoothing_and_logarithms_change_the_drawing() -> None:
    drawings = [of_job("loss"), of_job("loss", is_log=True), of_job("loss", smooth=0.9)]
    assert len(set(drawings)) == 3
    assert b"exponential moving averages" in drawings[2]


def test_smoothing_of_a_constant_is_that_constant() -> None:
    assert plots.run._smoothed(np.full(5, 3.0), 0.9) == pytest.approx(3.0)
    assert plots.run._smoothed(np.array([1.0, 0.0]), 0.5).tolist() == pytest.approx([1.0, 1 / 3])


def test_a_logarithm_of_nothing_is_refused() -> None:
    with pytest.raises(Conflict, match="a logarithmic axis needs a value above 0"):
        of_job("lr", is_log=True)
    with pytest.raises(Conflict, match="temperature by step: no value is finite"):
        of_job("temperature")


def test_a_panel_without_a_logarithm_hides_no_other() -> None:
    curves = {"lambda_max": curve([1.0, 2.0]), "temperature": curve([0.0, -1.0, np.inf])}
    drawn = plots.of_job("ko", curves, "diagnostics", SVG, is_log=True, smooth=0.0)
    said = check_alone(drawn)[1].text or ""
    assert said.endswith("On a linear axis, because no value is above 0: temperature.")
    with pytest.raises(Conflict, match="a logarithmic axis needs a value above 0"):
        plots.of_job("ko", {"temperature": curves["temperature"]}, "diagnostics", SVG, is_log=True, smooth=0.0)


def test_what_no_xml_may_hold_is_replaced() -> None:
    texts = [element.text or "" for element in check_alone(of_job("odd\ufffe\uffff\x01")).iter()]
    assert "odd\ufffd\ufffd\ufffd by step" in texts
    assert "odd\ufffd\ufffd\ufffd" in texts


def test_as_pixels() -> None:
    assert size(of_job("diagnostics", FileOptions("png", "dark", 700)))[0] == 700


def test_what_can_be_asked_for() -> None:
    assert list(plot_names.of_job(["lr", "val_loss", "lambda_max/1.weight"])) == [
        "loss",
        "lr",
        "lambda_max/1.weight",
        "val_loss",
    ]
    assert plot_names.of_job([]) == {}
