"""The studies on digits: pairing, splits, choice of settings, tables."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import claims, digits, golden
from benchmarks.digits import Run, Setting
from tests.one_thread import one_thread  # noqa: F401 (a fixture, at work wherever it is imported)

SHORT = Setting("adam", 1e-3, epochs=2)


def run(setting: Setting = SHORT, seed: int = 0, validation: float = 0.9, test: float = 0.9, **rest: object) -> Run:
    return Run(
        setting, seed, seed, validation, test, **{"correlation": 0.1, "diverged": False, "cpu_seconds": 1.0} | rest
    )


class TestPairing:
    @pytest.mark.parametrize("form", ["none", "soft", "bounded", "hard", "noise", "decay", "orthogonal"])
    def test_contenders_of_one_seed_differ_only_in_knob(self, form: str) -> None:
        plain, contender = (digits.train(setting, seed=3, split=5) for setting in (SHORT, replace(SHORT, form=form)))
        assert (contender.validation, contender.test) == (plain.validation, plain.test)
        assert contender.correlation == plain.correlation

    @pytest.mark.parametrize("form", ["soft", "bounded", "hard", "noise", "decay", "orthogonal", "centralized"])
    def test_knob_changes_the_training(self, form: str) -> None:
        contender = digits.train(replace(SHORT, form=form, knob=1.0), seed=3, split=5)
        assert contender.correlation != digits.train(SHORT, seed=3, split=5).correlation

    def test_seeds_give_different_trainings(self) -> None:
        first, second = (digits.train(SHORT, seed, split=5) for seed in (3, 4))
        assert first.correlation != second.correlation

    def test_process_pool_gives_the_same_numbers(self) -> None:
        (pooled,) = digits.train_all([digits.Task(SHORT, 3, 5)], workers=1)
        assert replace(pooled, cpu_seconds=0) == replace(digits.train(SHORT, 3, 5), cpu_seconds=0)


class TestSplits:
    @pytest.mark.parametrize("split", [digits.GOLDEN_SPLIT, *claims.TUNING_SEEDS, *claims.EVALUATION_SEEDS])
    def test_each_record_is_in_exactly_one_part(self, split: int) -> None:
        parts = digits.partition(split)
        assert [len(part) for part in parts] == [800, 200, 797]
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(1797))

    def test_splits_differ(self) -> None:
        seeds = [digits.GOLDEN_SPLIT, *claims.TUNING_SEEDS, *claims.EVALUATION_SEEDS]
        tests = {tuple(digits.partition(seed)[2].sort().values.tolist()) for seed in seeds}
        assert len(tests) == len(seeds) == 1 + 3 + 10


class TestTraining:
    def test_diverged_run_scores_chance_level(self) -> None:
        result = digits.train(Setting("sgd", 1e6, epochs=1), seed=0)
        assert result.diverged
        assert claims.score(result, result.test) == 0.1

    @pytest.mark.parametrize(("form", "strength"), [("none", 0.0), ("soft", 3.2), ("bounded", 0.95)])
    def test_gauge_of_equal_rows(self, form: str, strength: float) -> None:
        weights = torch.nn.Parameter(torch.ones(32, 4))
        weights.grad = torch.ones(32, 4)
        gauge = digits.Gauge(weights, replace(SHORT, form=form, knob=0.1))
        gauge.measure()
        assert gauge.means() == pytest.approx((32, strength), rel=1e-5)

    def test_measuring_does_not_change_the_training(self) -> None:
        setting = replace(SHORT, form="soft", knob=0.1, width=32)
        plain, measured = (digits.train(setting, 0, measured=measured) for measured in (False, True))
        assert measured.correlation == plain.correlation
        assert measured.strength == pytest.approx(0.1 * measured.lambda_max)
        assert plain.lambda_max is None


class TestChoice:
    @pytest.mark.parametrize("contender", claims.CONTENDERS, ids=lambda c: f"{c.title} on {c.base}")
    def test_contenders_have_equal_numbers_of_trials(self, contender: claims.Contender) -> None:
        assert len(set(contender.trials(1.0))) == claims.TRIALS
        assert claims.ends(s.lr for s in contender.trials(1.0)) == claims.RATES[contender.base]

    def test_chooses_by_validation_accuracy(self) -> None:
        slow, fast = SHORT, replace(SHORT, lr=1e-2)
        assert claims.chosen([run(slow, validation=0.8, test=0.9), run(fast, validation=0.9, test=0.8)]) == fast

    def test_chooses_the_smaller_rate_of_equal_means(self) -> None:
        slow, fast = SHORT, replace(SHORT, lr=1e-2)
        thirds = [run(fast, i, v) for i, v in enumerate((0.1, 0.2, 0.3))]
        assert claims.chosen([*thirds, *(run(slow, i, v) for i, v in enumerate((0.3, 0.2, 0.1)))]) == slow

    def test_does_not_choose_diverged_settings(self) -> None:
        lucky, safe = replace(SHORT, lr=1e-4), SHORT
        assert claims.chosen([run(lucky, validation=0.5, diverged=True), run(safe, validation=0.4)]) == safe


class TestStudies:
    @pytest.fixture
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first two contenders of each base, with two learning rates and one knob."""
        of_base = [[c for c in claims.CONTENDERS if c.base == base][:2] for base in claims.RATES]
        cut = [replace(c, knobs=c.knobs[:1]) for both in of_base for c in both]
        monkeypatch.setattr(claims, "CONTENDERS", cut)
        monkeypatch.setattr(claims, "TRIALS", 2)

    def test_fresh_tunes_and_evaluates_on_separate_seeds(self, few: None, tmp_path: Path) -> None:
        study = claims.fresh("a command", workers=0, tuning_seeds=[7], evaluation_seeds=[8, 9], epochs=1)
        assert {r.seed for r in study.tuning} == {7}
        assert len(study.tuning) == 2 * 4 * 2
        assert [(r.seed, r.split) for r in study.evaluation] == [(8, 8)] * 8 + [(9, 9)] * 8
        study.save(tmp_path / "new" / "fresh.json")
        assert claims.Study.load(tmp_path / "new" / "fresh.json") == study
        assert claims.fresh_table(study).count("\n") == 2 + 8 + 1

    def test_fresh_table_pairs_by_seed_and_adjusts(self, few: None) -> None:
        adam, soft = Setting("adam", 1e-3), Setting("adam", 3e-4, "soft", 0.03)
        both = [(adam, [0.8, 0.7, 0.6]), (soft, [0.9, 0.81, 0.69])]
        runs = [
            run(setting, seed, test=v, cpu_seconds=1 + (setting == soft))
            for setting, vs in both
            for seed, v in enumerate(vs)
        ]
        others = [run(Setting("sgd", 0.1, form), seed) for form in ("plain", "soft") for seed in range(3)]
        condensed = [replace(r, setting=replace(r.setting, scale=0.1)) for r in runs + others]
        table = claims.fresh_table(claims.Study("a command", [*reversed(runs), *others, *condensed], []))
        row = next(line for line in table.splitlines() if line.startswith("| 1 | KO soft | lr 0.0003†"))
        assert row == (
            "| 1 | KO soft | lr 0.0003†, gamma 0.03 | 0.8000 ± 0.1054 | +0.1000 [+0.0752, +0.1248] | 0.0033 | 0.0033 "
            "| 0 of 3 | 2.00 |"
        )

    def test_width_table_has_one_row_per_scale_and_width(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claims, "WIDTH_FORMS", (("none", 0.0), ("soft", 0.1)))
        study = claims.width("a command", workers=0, widths=(8, 16), epochs=1)
        assert len(study.evaluation) == 2 * 2 * 2 * 3
        lines = claims.width_table(study).splitlines()
        assert [line.split(" | ")[:2] for line in lines[2:6]] == [
            [f"| {scale}", width] for scale in ("1", "0.1") for width in ("8", "16")
        ]


class TestTables:
    PAGE = "1\n<!-- a table: begin -->\nold\n<!-- a table: end -->\n2 <!-- b table: begin -->3<!-- b table: end -->\n"

    def test_replaces_only_the_text_between_the_markers(self) -> None:
        assert golden.replaced(self.PAGE, "a", "new") == self.PAGE.replace("\nold\n", "\n\nnew\n\n")
        assert golden.replaced(golden.replaced(self.PAGE, "a", "1"), "a", "2") == golden.replaced(self.PAGE, "a", "2")

    @pytest.mark.parametrize("page", ["", "<!-- a table: begin -->", PAGE + PAGE, PAGE.replace("begin", "x")])
    def test_raises_value_error_for_page_without_markers(self, page: str) -> None:
        with pytest.raises(ValueError, match="a table: begin"):
            golden.replaced(page, "a", "new")

    def test_writes_a_saved_golden_table(self, tmp_path: Path) -> None:
        runs = [run(key.setting, seed, test=key.reference) for key in golden.KEYS for seed in range(5)]
        worse = [replace(r, test=0.95) if r.setting == golden.KEYS[0].setting else r for r in runs]
        claims.Study("a command", worse, []).save(tmp_path / "golden.json")
        page = tmp_path / "ko.md"
        page.write_text("<!-- golden table: begin -->\n<!-- golden table: end -->")
        assert golden.write(tmp_path, page) == ["golden"]
        assert "| 1 | Adam 0.0003 | 0.9500 ± 0.0000 † 0.9553 | 0.9558 ± 0.0000 |" in page.read_text()
        assert "65 of 66 cells agree" in page.read_text()
        assert "**0.203 ± 0.000**" in page.read_text()
