"""The golden table with the library alone: means over five seeds, within 0.004 of the reference."""

import pytest

from benchmarks import golden
from tests.one_thread import one_thread  # noqa: F401 (a fixture, at work wherever it is imported)


def reference(setting: tuple[float, str, float], form: str) -> float:
    return golden.TABLE[setting][list(golden.FORMS).index(form)]


@pytest.mark.parametrize(
    "form",
    [
        "none",
        "soft .1",
        pytest.param("bounded .1", marks=pytest.mark.full),
        pytest.param("hard .5", marks=pytest.mark.full),
    ],
)
def test_means_of_condensed_network_with_adam_1e_3_equal_the_reference(form: str) -> None:
    cell = golden.measure(0.1, "adam", 1e-3, form)
    assert cell.accuracy == pytest.approx(reference((0.1, "adam", 1e-3), form), abs=golden.TOLERANCE)
    # Two units in the last digit of the reference; the forms differ by 7 to 79 units.
    assert cell.correlation == pytest.approx(golden.CORRELATIONS["adam", 1e-3, form], abs=0.002)


def test_soft_collisions_collapse_with_adam_1e_2() -> None:
    # The accuracy depends chaotically on the seed, but the network learns next to nothing.
    accuracy, _ = golden.train(seed=0, scale=0.1, base="adam", lr=1e-2, form="soft .1")
    assert accuracy < 0.3
