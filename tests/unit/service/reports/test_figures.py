"""Curves joined to bands, and drawings made fit for a page."""

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
from service.reports.formats import render
from service.reports.palette import COLOURS, DASHES, MARKERS, VARIABLES, plot_styles
from service.reports.traces import MOST_POINTS, GroupCurves, Trace, band, first_hit, trace
from service.specs.outcome import Target
from tests.unit.service.reports.studies import study


def curve(values: list[float], *, every: int = 1, seconds: float = 1.0) -> Curve:
    steps = every * np.arange(1, len(values) + 1)
    return Curve(steps, np.array(values, np.float64), seconds * steps)


def line(values: list[float], x: list[float] | None = None) -> Trace:
    return Trace(np.array(x if x is not None else range(len(values)), np.float64), np.array(values, np.float64))


class TestTraces:
    def test_only_finite_points_are_drawn(self) -> None:
        found = trace(curve([1.0, np.nan, 3.0, np.inf]), "steps")
        assert found is not None
        assert (found.x.tolist(), found.y.tolist()) == ([1, 3], [1, 3])
        assert trace(curve([np.nan]), "steps") is None
        assert trace(None, "steps") is None

    def test_many_points_become_means_and_the_last_stays(self) -> None:
        found = trace(curve(list(np.tile([0.0, 1.0], 5000))), "wall_seconds")
        assert found is not None
        assert len(found.x) == MOST_POINTS
        assert found.y[:-1] == pytest.approx(0.5, abs=0.02)
        assert (found.x[-1], found.y[-1]) == (10_000, 1.0)
        assert (np.diff(found.x) > 0).all()

    def test_a_band_is_as_long_as_all_its_runs(self) -> None:
        found = band([line([0, 2, 4, 6]), line([2, 2, 2])])
        assert found is not None
        assert found.x.tolist() == [0, 1, 2]
        assert found.mean.tolist() == [1, 2, 3]
        assert found.low.tolist() == [0, 2, 2]
        assert found.high.tolist() == [2, 2, 4]
        assert found.runs == 2

    def test_runs_at_other_times_are_interpolated(self) -> None:
        found = band([line([0, 10], [0, 10]), line([5, 5], [2, 8])])
        assert found is not None
        assert found.x.tolist() == [2, 8]
        assert found.mean.tolist() == [3.5, 6.5]

    def test_the_range_holds_every_point_however_many_there_are(self) -> None:
        """One step of 100,000 is a spike, once at the beginning, once within and once at the end."""
        for spike in (0, 54_321, 99_999):
            values = np.tile([0.4, 0.6], 50_000)
            values[spike] = 7.0
            found = band([trace(curve(list(values)), "steps"), trace(curve([0.5] * 100_000), "steps")])
            assert found is not None
            assert len(found.x) <= MOST_POINTS
            assert (found.low.min(), found.high.max()) == (0.4, 7.0)
            assert abs(found.x[found.high.argmax()] - spike) < 100_000 / MOST_POINTS
            assert (found.low <= found.mean).all()
            assert (found.mean <= found.high).all()
            calm = np.arange(len(found.x)) != found.high.argmax()
            assert found.high[calm].tolist() == [0.6] * calm.sum()
            assert found.mean[calm] == pytest.approx(0.5, abs=0.1)

    def test_what_comes_before_or_after_the_others_is_not_in_the_range(self) -> None:
        early = line([9.0, 1.0, 1.0, 9.0], [0, 10, 20, 30])
        found = band([early, line([2.0] * 200, list(np.linspace(10, 20, 200)))])
        assert found is not None
        assert (found.low.min(), found.high.max()) == (1.0, 2.0)

    def test_what_has_nothing_in_common_has_no_band(self) -> None:
        assert band([line([1, 2], [0, 1]), line([1, 2], [5, 6])]) is None
        assert band([]) is None

    def test_diverged_runs_are_told_apart(self) -> None:
        made = study(diverged={(0, 1): 2})
        (group,) = [group for group in made.answer.tasks[0].groups if group.diverged]
        runs = GroupCurves.of(group, made.curves)
        assert (len(runs.finished), len(runs.diverged)) == (3, 2)
        assert len(runs.endpoints("test_accuracy")) == 3
        assert not [run for run in runs.diverged if "test_accuracy" in run]
        assert [len(run["val_loss"].steps) for run in runs.diverged] == [14, 14]

    def test_a_target_is_met_or_missed(self) -> None:
        run = {"val_accuracy": curve([0.1, np.nan, 0.96, 0.9], seconds=2.0)}
        assert first_hit(run, Target(metric="val_accuracy", value=0.95)) == (6.0, True)
        assert first_hit(run, Target(metric="val_accuracy", value=0.99)) == (8.0, False)
        assert first_hit({"val_loss": curve([2.0, 0.4])}, Target(metric="val_loss", value=0.5)) == (2.0, True)
        assert first_hit({}, Target(value=0.5)) is None


class TestLooks:
    def test_the_page_draws_what_the_answer_says(self) -> None:
        made = study()
        assert {label: style.view for label, style in Study(made.answer, {}).styles.items()} == made.answer.looks
        assert Study(made.answer, {}).styles["ko soft (adam)"].colour == "#0072b2"

    def test_a_look_is_what_its_numbers_say(self) -> None:
        found = plot_styles(
            ["b", "a"], {"a": LookView(colour=6, dash=3, marker=8), "b": LookView(colour=0, dash=0, marker=1)}
        )
        assert list(found) == ["b", "a"]
        assert (found["a"].position, found["a"].colour, found["a"].marker) == (1, COLOURS[6], MARKERS[8])
        assert (found["a"].dashes, found["b"].dashes) == (DASHES[3], ())


class TestWindow:
    def test_holds_everything_where_that_can_be_seen(self) -> None:
        window = Window.around([1.0, 2.0], [1.0, 4.0])
        assert window.low < 1
        assert window.holds(4.0)
        assert not window.is_cut

    def test_leaves_out_what_would_hide_the_rest(self) -> None:
        window = Window.around([96.0, 97.0], [10.0, 96.0, 97.0])
        assert window.is_cut
        assert not window.holds(10.0)
        assert window.low < window.at_edge(low=True) < 96

    def test_one_value_has_room(self) -> None:
        window = Window.around([0.5], [0.5])
        assert window.low < 0.5 < window.high

    def test_shares_end_at_one(self) -> None:
        assert Window.around([], [90.0, 126.0], most=100.0).high == 102.0


def test_ranks_within_the_critical_difference_are_joined() -> None:
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
def test_ticks(value: float, text: str) -> None:
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

    def test_asks_for_nothing(self) -> None:
        svg = drawing()
        assert "://" not in svg
        assert "<style" not in svg
        assert "<metadata" not in svg
        assert "font-family" not in svg

    def test_colours_are_the_page_s(self) -> None:
        svg = drawing()
        assert VARIABLES[COLOURS[0]] in svg
        assert not re.findall(r"#[0-9a-f]{6}", svg)

    def test_ids_are_unique_and_all_in_use(self) -> None:
        svg = drawing()
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(set(ids)) == len(ids)
        assert all(one.startswith("key-") for one in ids)
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {name for pair in used for name in pair if name} == set(ids) - {"key-title", "key-desc"}

    def test_numbers_are_short(self) -> None:
        assert not re.findall(r"\d\.\d{3,}", re.sub(r'style="[^"]*"', "", drawing()))

    @pytest.mark.parametrize("label", ["$a_b$", "<b>&amp;", "学习率 优化器", "\\alpha", "Донецкий"])
    def test_labels_stand_for_themselves(self, label: str) -> None:
        escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert f">{escaped}</text>" in drawing(label=label)

    def test_is_the_same_each_time(self) -> None:
        assert drawing() == drawing()


class TestSettings:
    def test_are_only_ours_while_we_draw(self) -> None:
        before = dict(matplotlib.rcParams)
        with settings():
            assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert dict(matplotlib.rcParams) == before

    def test_two_pages_at_once_do_not_disturb_each_other(self) -> None:
        expected, found = drawing(), []
        threads = [threading.Thread(target=lambda: found.append(drawing())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 4


def test_a_letter_without_a_place_is_a_question_mark() -> None:
    glyphs = GlyphSubstitution([chr(code) for code in range(0x4E00, 0x4E00 + 300)])
    assert glyphs.decode(glyphs.encode("\u4e00")) == "\u4e00"
    assert glyphs.encode(chr(0x4E00 + 299)) == "?"


def test_runs_without_curves_are_no_error() -> None:
    group = study().answer.tasks[0].groups[0].model_copy(update={"jobs": [UUID(int=1)]})
    assert GroupCurves.of(group, {}).finished == [{}]


def test_a_target_beyond_the_axes_is_told_and_leaves_them_their_place() -> None:
    """Its name would be laid out where it is, and the axes would have no room."""
    made = study()
    targets = [task.model_copy(update={"target": Target(value=0.01)}) for task in made.answer.tasks]
    body = render("html", made.answer.model_copy(update={"tasks": targets}), made.curves).body
    assert "The target, 1 %, is outside the axes." in body


@pytest.mark.parametrize("count", [1, 4])
def test_runs_without_a_moment_in_common_are_told_and_the_others_drawn(count: int) -> None:
    """So short that one run had ended before the next one's first evaluation."""
    made = study()
    curves = dict(made.curves)
    groups = [group for task in made.answer.tasks[:1] for group in task.groups[:count]]
    for group in groups:
        for number, job in enumerate(group.jobs):
            curves[job] = {
                name: Curve(one.steps, one.values, one.wall_seconds + 1000 * number)
                for name, one in curves[job].items()
            }
    body = render("html", made.answer.model_copy(update={"tasks": made.answer.tasks[:1]}), curves).body
    if count == 1:
        assert f"Not drawn, because its runs do not overlap: {groups[0].label}." in body
    else:
        assert "validation accuracy over time (the runs of each optimizer do not overlap" in body


def test_what_will_not_come_is_not_waited_for() -> None:
    made = study(with_curves=False)
    assert "no run has this curve, or it is no longer stored" in render("html", made.answer, made.curves).body
    running = made.answer.model_copy(update={"status": "running"})
    assert "no run has this curve yet, or it is no longer stored" in render("html", running, made.curves).body
