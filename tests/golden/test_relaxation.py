"""Hard collisions relax two beams to a Maxwellian (benchmarks/relaxation.py), within bounds of sampling and rounding.

All is seeded, so every run gives the same. A right collision leaves 4 standard errors with one seed in 16,000.
"""

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from benchmarks import relaxation
from benchmarks.relaxation import ROUNDS, Band, N
from tests.one_thread import one_thread  # noqa: F401 (a fixture, at work wherever it is imported)

RUNS = 8
SAMPLES = 100
EPS = torch.finfo(torch.float64).eps


@cache
def run(seed: int) -> list[Tensor]:
    return relaxation.relax(relaxation.two_beams(seed=seed), seed=seed)


@cache
def equilibrium() -> dict[str, Band]:
    return relaxation.equilibrium(samples=SAMPLES)


def ends() -> list[Tensor]:
    return [run(seed)[-1] for seed in range(RUNS)]


def test_momentum_and_temperature_are_conserved_to_rounding() -> None:
    drift = torch.tensor([0.5, -0.25, 2.0], dtype=torch.float64)
    states = relaxation.relax(relaxation.two_beams() + drift)
    # A collision rounds a row's new velocity to 4 eps of the pair's largest speed, and its energy to twice that; there
    # is at most one a round. The means over the rows add their own log2(N) < 16 roundings.
    roundings = 4 * ROUNDS + 16
    largest = max(float(state.norm(dim=1).max()) for state in states)
    for state in states:
        assert (relaxation.momentum(state) - drift).abs().max() < roundings * EPS * largest
        assert float(relaxation.temperature(state)) == pytest.approx(1, abs=2 * roundings * EPS)


def test_temperatures_of_the_axes_become_equal() -> None:
    # Var T_k is 2 / N for independent particles; their common energy takes a third of it away.
    error = math.sqrt(4 / (3 * N))
    assert (relaxation.temperatures(run(0)[0]) - 1).abs().min() > 100 * error
    final = torch.stack([relaxation.temperatures(end) for end in ends()])  # (RUNS, D)
    assert (final - 1).abs().max() < 4 * error
    assert (final.mean(dim=0) - 1).abs().max() < 4 * error / math.sqrt(RUNS)


def test_kurtosis_becomes_that_of_a_normal_distribution() -> None:
    # Of n normal numbers: mean 3 (n - 1) / (n + 1), variance 24 / n.
    expected, error = 3 * (N - 1) / (N + 1), math.sqrt(24 / N)
    assert relaxation.kurtosis(run(0)[0])[0] < expected - 50 * error
    final = torch.stack([relaxation.kurtosis(end) for end in ends()])  # (RUNS, D)
    assert (final - expected).abs().max() < 4 * error
    assert abs(final.mean() - expected) < 4 * error / math.sqrt(final.numel())


def test_components_become_normal() -> None:
    start, end = run(0)[0], ends()
    assert stats.kstest(start[:, 0], "norm").statistic == pytest.approx(float(relaxation.ks(start)[0]), abs=1e-12)
    assert stats.kstest(start[:, 0], "norm").pvalue < 1e-100
    # Fixed momentum and temperature make the p-values larger than uniform ones: a bound for uniform ones holds.
    p = [stats.kstest(end[seed][:, k], "norm").pvalue for seed in range(RUNS) for k in range(3)]
    assert min(p) > 0.01 / len(p)
    # Maxwellian samples have the same constraints, so their distances are the sharper measure.
    band = equilibrium()["ks"]
    distance = torch.stack([relaxation.ks(state) for state in end]).mean()
    assert distance < band.mean + 4 * band.sd * math.sqrt(1 / RUNS + 1 / SAMPLES)


def test_h_falls_to_that_of_the_maxwellian() -> None:
    h = torch.tensor([[float(relaxation.h_of(state).mean()) for state in run(seed)] for seed in range(RUNS)])
    band = equilibrium()["h"]
    assert (h[:, 0] - band.mean).min() > 1000 * band.sd
    # A difference of two independent samples has sqrt(2) times the noise of one; these depend on each other, which
    # makes it less.
    assert h.diff(dim=1).max() < 4 * math.sqrt(2) * band.sd
    assert (h[:, -1] - band.mean).abs().max() < 4 * band.sd
    assert abs(h[:, -1].mean() - band.mean) < 4 * band.sd * math.sqrt(1 / RUNS + 1 / SAMPLES)


def test_h_of_v_x_alone_undershoots() -> None:
    # Which is why H is the mean over the components: the entropy of one of them may exceed its equilibrium value.
    band = equilibrium()["h_x"]
    assert min(float(relaxation.h_of(state)[0]) for state in run(0)) < band.mean - 10 * band.sd


def test_h_of_a_maxwellian_is_the_formula_up_to_the_bias_of_the_histogram() -> None:
    exact = -math.log(2 * math.pi * math.e) / 2
    width = relaxation.bin_width(N)
    # Noise in the bins raises H by (occupied bins - 1) / 2N (Miller 1955); their extent is below 8.8 thermal speeds on
    # average, twice the largest of N numbers. Their width lowers it by width^2 / 24 times the Fisher information, 1.
    bias = 8.8 / width / (2 * N), width**2 / 24
    band = equilibrium()["h"]
    assert exact - bias[1] < band.mean < exact + bias[0]


def test_no_relaxation_where_positions_are_spread_out() -> None:
    scale = 10.0
    start = relaxation.two_beams()
    states = relaxation.relax(start, relaxation.scattered(scale))
    # w_i - w_j is normal with variance 2 scale^2 an axis. The mean of exp(-distance) is at most its integral, 8 pi,
    # times the largest density; the speed's part of the probability is at most 1.
    collisions = ROUNDS * 8 * math.pi * (4 * math.pi * scale**2) ** -1.5
    met = sum(relaxation.collided(states))
    assert met < collisions + 4 * math.sqrt(2 * collisions / N)  # pairs are Poisson events that count twice
    # Who met nobody flies on as before.
    before, after = relaxation.measure(start), relaxation.measure(states[-1])
    assert after.t_x > (1 - collisions) * before.t_x
    assert after.kurtosis < 1.1


@pytest.mark.parametrize(("scale", "flight"), [(1.0, 0.0), (3.0, 0.0), (0.0, 0.1), (0.0, 1.0)])
def test_no_equilibrium_in_time_with_some_spread_or_free_flight(scale: float, flight: float) -> None:
    states = relaxation.relax(relaxation.two_beams(), relaxation.scattered(scale), flight=flight)
    assert relaxation.temperatures(states[-1])[0] - 1 > 20 * math.sqrt(4 / (3 * N))


def test_picture_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        relaxation.plot(path, run(0), equilibrium()["h"])
    assert first.read_bytes() == second.read_bytes()
