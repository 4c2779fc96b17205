"""Hard collisions relax two beams to a Maxwellian (benchmarks/relaxation.py), within bounds of sampling and rounding.

All runs are seeded and reproducible. A correct collision exceeds 4 standard errors with 1 of 16,000 seeds.
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
    # A collision rounds the new velocity of a row to 4 eps of the largest speed of the pair, and its energy to twice
    # that; a row has at most one collision per round. The means over the rows add log2(N) < 16 roundings.
    roundings = 4 * ROUNDS + 16
    largest = max(float(state.norm(dim=1).max()) for state in states)
    for state in states:
        assert (relaxation.momentum(state) - drift).abs().max() < roundings * EPS * largest
        assert float(relaxation.temperature(state)) == pytest.approx(1, abs=2 * roundings * EPS)


def test_temperatures_of_the_axes_become_equal() -> None:
    # Var T_k is 2 / N for independent particles; conservation of energy removes a third of it.
    error = math.sqrt(4 / (3 * N))
    assert (relaxation.temperatures(run(0)[0]) - 1).abs().min() > 100 * error
    final = torch.stack([relaxation.temperatures(end) for end in ends()])  # (RUNS, D)
    assert (final - 1).abs().max() < 4 * error
    assert (final.mean(dim=0) - 1).abs().max() < 4 * error / math.sqrt(RUNS)


def test_kurtosis_relaxes_to_that_of_a_normal_distribution() -> None:
    # Of n normal numbers: mean 3 (n - 1) / (n + 1), variance 24 / n.
    expected, error = 3 * (N - 1) / (N + 1), math.sqrt(24 / N)
    assert relaxation.kurtosis(run(0)[0])[0] < expected - 50 * error
    final = torch.stack([relaxation.kurtosis(end) for end in ends()])  # (RUNS, D)
    assert (final - expected).abs().max() < 4 * error
    assert abs(final.mean() - expected) < 4 * error / math.sqrt(final.numel())


def test_components_relax_to_a_normal_distribution() -> None:
    start, end = run(0)[0], ends()
    assert stats.kstest(start[:, 0], "norm").statistic == pytest.approx(float(relaxation.ks(start)[0]), abs=1e-12)
    assert stats.kstest(start[:, 0], "norm").pvalue < 1e-100
    # With momentum and temperature fixed, p values are larger than uniform ones, so a bound for uniform ones holds.
    p = [stats.kstest(end[seed][:, k], "norm").pvalue for seed in range(RUNS) for k in range(3)]
    assert min(p) > 0.01 / len(p)
    # Maxwellian samples satisfy the same constraints, so comparing distances is the sharper test.
    band = equilibrium()["ks"]
    distance = torch.stack([relaxation.ks(state) for state in end]).mean()
    assert distance < band.mean + 4 * band.sd * math.sqrt(1 / RUNS + 1 / SAMPLES)


def test_h_decreases_to_that_of_the_maxwellian() -> None:
    h = torch.tensor([[float(relaxation.h_of(state).mean()) for state in run(seed)] for seed in range(RUNS)])
    band = equilibrium()["h"]
    assert (h[:, 0] - band.mean).min() > 1000 * band.sd
    # The difference of two independent samples has sqrt(2) times the noise of one; successive rounds are correlated,
    # which reduces it.
    assert h.diff(dim=1).max() < 4 * math.sqrt(2) * band.sd
    assert (h[:, -1] - band.mean).abs().max() < 4 * band.sd
    assert abs(h[:, -1].mean() - band.mean) < 4 * band.sd * math.sqrt(1 / RUNS + 1 / SAMPLES)


def test_h_of_v_x_undershoots_its_final_value() -> None:
    # The entropy of a single component may exceed its equilibrium value, so H is the mean over the components.
    band = equilibrium()["h_x"]
    assert min(float(relaxation.h_of(state)[0]) for state in run(0)) < band.mean - 10 * band.sd


def test_h_of_a_maxwellian_equals_the_formula_within_histogram_bias() -> None:
    exact = -math.log(2 * math.pi * math.e) / 2
    width = relaxation.bin_width(N)
    # Noise in the bins raises H by (occupied bins - 1) / 2N (Miller 1955); their extent is below 8.8 thermal speeds on
    # average, twice the largest of N numbers. Their width lowers it by width^2 / 24 times the Fisher information, 1.
    bias = 8.8 / width / (2 * N), width**2 / 24
    band = equilibrium()["h"]
    assert exact - bias[1] < band.mean < exact + bias[0]


def test_distant_particles_do_not_relax() -> None:
    scale = 10.0
    start = relaxation.two_beams()
    states = relaxation.relax(start, relaxation.scattered(scale))
    # w_i - w_j is normal with variance 2 scale^2 an axis. The mean of exp(-distance) is at most its integral, 8 pi,
    # times the largest density; the speed's part of the probability is at most 1.
    collisions = ROUNDS * 8 * math.pi * (4 * math.pi * scale**2) ** -1.5
    observed = sum(relaxation.collided(states))
    assert observed < collisions + 4 * math.sqrt(2 * collisions / N)  # pairs are Poisson events that count twice
    # Particles that did not collide keep their velocity.
    before, after = relaxation.measure(start), relaxation.measure(states[-1])
    assert after.t_x > (1 - collisions) * before.t_x
    assert after.kurtosis < 1.1


@pytest.mark.parametrize(("scale", "flight"), [(1.0, 0.0), (3.0, 0.0), (0.0, 0.1), (0.0, 1.0)])
def test_distance_or_free_flight_prevents_equilibrium_in_40_rounds(scale: float, flight: float) -> None:
    states = relaxation.relax(relaxation.two_beams(), relaxation.scattered(scale), flight=flight)
    assert relaxation.temperatures(states[-1])[0] - 1 > 20 * math.sqrt(4 / (3 * N))


def test_figure_is_reproducible_byte_for_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        relaxation.plot(path, run(0), equilibrium()["h"])
    assert first.read_bytes() == second.read_bytes()
