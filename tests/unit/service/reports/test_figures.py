"""Curves as bands, plot styles, axes, and inline SVG figures of the report."""

import re
import threading
from uuid import UUID

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from service.comparisons.styles import LookView
from service.metrics.read import Curve
from service.reports.figures import canvas
from service.reports.figures.across import alike
from service.reports.figures.canvas import GlyphSubstitution, inline, settings
from service.reports.figures.scores import Window
from service.reports.figures.study import Study
from service.reports.palette import COLOURS, DASHES, MARKERS, VARIABLES, plot_styles
from service.reports.rendering import render
from service.reports.traces import MAX_POINTS, GroupCurves, Trace, band, first_hit, trace
from service.specs.summary import Target
from tests.unit.service.reports.studies import TASKS, study


def curve(values: list[float], *, every: int = 1, seconds: float = 1.0) -> Curve:
    steps = every * np.arange(1, len(values) + 1)
    return Curve(steps, np.array(values, np.float64), seconds * steps)


def line(values: list[float], x: list[float] | None = None) -> Trace:
    return Trace(np.array(x if x is not None else range(len(values)), np.float64), np.array(values, np.float64))


class TestTraces:
    def test_omits_points_that_are_not_finite(self) -> None:
        points = trace(curve([1.0, np.nan, 3.0, np.inf]), "steps")
        assert points is not None
        assert (points.x.tolist(), points.y.tolist()) == ([1, 3], [1, 3])
        assert trace(curve([np.nan]), "steps") is None
        assert trace(None, "steps") is None

    def test_averages_many_points_and_keeps_last(self) -> None:
        points = trace(curve(list(np.tile([0.0, 1.0], 5000))), "wall_seconds")
        assert points is not None
        assert len(points.x) == MAX_POINTS
        assert points.y[:-1] == pytest.approx(0.5, abs=0.02)
        assert (points.x[-1], points.y[-1]) == (10_000, 1.0)
        assert (np.diff(points.x) > 0).all()

    def test_band_covers_common_range_of_runs(self) -> None:
        runs_band = band([line([0, 2, 4, 6]), line([2, 2, 2])])
        assert runs_band is not None
        assert runs_band.x.tolist() == [0, 1, 2]
        assert runs_band.mean.tolist() == [1, 2, 3]
        assert runs_band.low.tolist() == [0, 2, 2]
        assert runs_band.high.tolist() == [2, 2, 4]
        assert runs_band.runs == 2

    def test_interpolates_runs_at_different_times(self) -> None:
        runs_band = band([line([0, 10], [0, 10]), line([5, 5], [2, 8])])
        assert runs_band is not None
        assert runs_band.x.tolist() == [2, 8]
        assert runs_band.mean.tolist() == [3.5, 6.5]

    def test_range_includes_every_point(self) -> None:
        """One of 100,000 steps is a spike: at the beginning, within, or at the end."""
        for spike in (0, 54_321, 99_999):
            values = np.tile([0.4, 0.6], 50_000)
            values[spike] = 7.0
            runs_band = band([trace(curve(list(values)), "steps"), trace(curve([0.5] * 100_000), "steps")])
            assert runs_band is not None
            assert len(runs_band.x) <= MAX_POINTS
            assert (runs_band.low.min(), runs_band.high.max()) == (0.4, 7.0)
            assert abs(runs_band.x[runs_band.high.argmax()] - spike) < 100_000 / MAX_POINTS
            assert (runs_band.low <= runs_band.mean).all()
            assert (runs_band.mean <= runs_band.high).all()
            others = np.arange(len(runs_band.x)) != runs_band.high.argmax()
            assert runs_band.high[others].tolist() == [0.6] * others.sum()
            assert runs_band.mean[others] == pytest.approx(0.5, abs=0.1)

    def test_range_excludes_points_outside_common_range(self) -> None:
        early = line([9.0, 1.0, 1.0, 9.0], [0, 10, 20, 30])
        runs_band = band([early, line([2.0] * 200, list(np.linspace(10, 20, 200)))])
        assert runs_band is not None
        assert (runs_band.low.min(), runs_band.high.max()) == (1.0, 2.0)

    def test_no_band_without_common_range(self) -> None:
        assert band([line([1, 2], [0, 1]), line([1, 2], [5, 6])]) is None
        assert band([]) is None

    def test_separates_diverged_runs(self) -> None:
        data = study(diverged={(0, 1): 2})
        (group,) = [group for group in data.answer.tasks[0].groups if group.diverged]
        runs = GroupCurves.of(group, data.curves)
        assert (len(runs.finished), len(runs.diverged)) == (3, 2)
        assert len(runs.endpoints("test_accuracy")) == 3
        assert not [run for run in runs.diverged if "test_accuracy" in run]
        assert [len(run["val_loss"].steps) for run in runs.diverged] == [14, 14]

    def test_first_hit_or_end_of_run(self) -> None:
        run = {"val_accuracy": curve([0.1, np.nan, 0.96, 0.9], seconds=2.0)}
        assert first_hit(run, Target(metric="val_accuracy", value=0.95)) == (6.0, True)
        assert first_hit(run, Target(metric="val_accuracy", value=0.99)) == (8.0, False)
        assert first_hit({"val_loss": curve([2.0, 0.4])}, Target(metric="val_loss", value=0.5)) == (2.0, True)
        assert first_hit({}, Target(value=0.5)) is None


class TestLooks:
    def test_page_uses_styles_of_answer(self) -> None:
        data = study()
        assert {label: style.view for label, style in Study(data.answer, {}).styles.items()} == data.answer.looks
        assert Study(data.answer, {}).styles["ko soft (adam)"].colour == "#0072b2"

    def test_style_follows_from_numbers(self) -> None:
        styles = plot_styles(
            ["b", "a"], {"a": LookView(colour=6, dash=3, marker=8), "b": LookView(colour=0, dash=0, marker=1)}
        )
        assert list(styles) == ["b", "a"]
        assert (styles["a"].position, styles["a"].colour, styles["a"].marker) == (1, COLOURS[6], MARKERS[8])
        assert (styles["a"].dashes, styles["b"].dashes) == (DASHES[3], ())


class TestWindow:
    def test_contains_all_values_if_readable(self) -> None:
        window = Window.around([1.0, 2.0], [1.0, 4.0])
        assert window.low < 1
        assert window.holds(4.0)
        assert not window.is_cut

    def test_excludes_outliers(self) -> None:
        window = Window.around([96.0, 97.0], [10.0, 96.0, 97.0])
        assert window.is_cut
        assert not window.holds(10.0)
        assert window.low < window.at_edge(low=True) < 96

    def test_single_value_has_margin(self) -> None:
        window = Window.around([0.5], [0.5])
        assert window.low < 0.5 < window.high

    def test_shares_end_at_one(self) -> None:
        assert Window.around([], [90.0, 126.0], maximum=100.0).high == 102.0


def test_joins_ranks_within_critical_difference() -> None:
    assert alike([1.0, 1.5, 2.9, 3.2], 1.0) == [(1.0, 1.5), (2.9, 3.2)]
    assert alike([1.0, 1.8, 2.6], 1.0) == [(1.0, 1.8), (1.8, 2.6)]
    assert alike([1.0, 1.5, 2.0], 1.0) == [(1.0, 2.0)]
    assert alike([1.0, 3.0], 1.0) == []
    assert alike([1.0, 1.5], None) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.001, "0.001"),
        (-0.5, "−0.5"),
        (20_000, "20k"),
        (5_000, "5000"),
        (3e6, "3M"),
        (1e-6, "1e-6"),
        (1e30, "1e30"),
    ],
)
def test_formats_tick(value: float, text: str) -> None:
    assert canvas.tick(value) == text


def drawing(title: str = "a", label: str = "a") -> str:
    with settings():
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        glyphs = GlyphSubstitution([label])
        axes.plot([1, 2], [1, 3], color=COLOURS[0], marker="o")
        axes.fill_between([1, 2], [0, 1], [2, 4], color=COLOURS[1], alpha=0.2)
        axes.set_yticks([1], [glyphs.encode(label)])
        return str(inline(figure, "key", title, "described", glyphs))


class TestInline:
    def test_is_named_and_described(self) -> None:
        svg = drawing("what & why")
        assert svg.startswith("<svg ")
        assert 'role="img" aria-labelledby="key-title key-desc"' in svg
        assert '<title id="key-title">what &amp; why</title><desc id="key-desc">described</desc>' in svg

    def test_has_no_external_references(self) -> None:
        svg = drawing()
        assert "://" not in svg
        assert "<style" not in svg
        assert "<metadata" not in svg
        assert "font-family" not in svg

    def test_uses_colours_of_page(self) -> None:
        svg = drawing()
        assert VARIABLES[COLOURS[0]] in svg
        assert not re.findall(r"#[0-9a-f]{6}", svg)

    def test_ids_are_unique_and_used(self) -> None:
        svg = drawing()
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(set(ids)) == len(ids)
        assert all(id_.startswith("key-") for id_ in ids)
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {name for pair in used for name in pair if name} == set(ids) - {"key-title", "key-desc"}

    def test_numbers_have_few_decimals(self) -> None:
        assert not re.findall(r"\d\.\d{3,}", re.sub(r'style="[^"]*"', "", drawing()))

    @pytest.mark.parametrize("label", ["$a_b$", "<b>&amp;", "学习率 优化器", "\\alpha", "Донецкий"])
    def test_escapes_labels(self, label: str) -> None:
        escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert f">{escaped}</text>" in drawing(label=label)

    def test_is_reproducible(self) -> None:
        assert drawing() == drawing()


class TestSettings:
    def test_are_restored_after_drawing(self) -> None:
        before = dict(matplotlib.rcParams)
        with settings():
            assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert dict(matplotlib.rcParams) == before

    def test_concurrent_drawings_are_independent(self) -> None:
        expected, drawings = drawing(), []
        threads = [threading.Thread(target=lambda: drawings.append(drawing())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert drawings == [expected] * 4


def test_character_beyond_capacity_is_question_mark() -> None:
    glyphs = GlyphSubstitution([chr(code) for code in range(0x4E00, 0x4E00 + 300)])
    assert glyphs.decode(glyphs.encode("\u4e00")) == "\u4e00"
    assert glyphs.encode(chr(0x4E00 + 299)) == "?"


def test_accepts_runs_without_curves() -> None:
    group = study().answer.tasks[0].groups[0].model_copy(update={"jobs": [UUID(int=1)]})
    assert GroupCurves.of(group, {}).finished == [{}]


def test_states_target_outside_axes() -> None:
    """Otherwise the layout would make room for the label of the target and leave none for the axes."""
    data = study(tasks=TASKS[:1])
    targets = [task.model_copy(update={"target": Target(value=0.01)}) for task in data.answer.tasks]
    body = render("html", data.answer.model_copy(update={"tasks": targets}), data.curves).body
    assert "The target, 1 %, is outside the axes." in body


@pytest.mark.parametrize("count", [1, 4])
def test_states_runs_that_do_not_overlap(count: int) -> None:
    """The runs are so short that each ends before the first evaluation of the next."""
    data = study()
    curves = dict(data.curves)
    groups = [group for task in data.answer.tasks[:1] for group in task.groups[:count]]
    for group in groups:
        for number, job in enumerate(group.jobs):
            curves[job] = {
                name: Curve(stored.steps, stored.values, stored.wall_seconds + 1000 * number)
                for name, stored in curves[job].items()
            }
    body = render("html", data.answer.model_copy(update={"tasks": data.answer.tasks[:1]}), curves).body
    if count == 1:
        assert f"Not drawn, because its runs do not overlap: {groups[0].label}." in body
    else:
        assert "validation accuracy over time (the runs of each optimizer do not overlap" in body


def test_states_why_curves_are_missing() -> None:
    data = study(tasks=TASKS[:1], with_curves=False)
    assert "no run has this curve, or it is no longer stored" in render("html", data.answer, data.curves).body
    running = data.answer.model_copy(update={"status": "running"})
    assert "no run has this curve yet, or it is no longer stored" in render("html", running, data.curves).body
