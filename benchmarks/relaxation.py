"""Claim: KO's hard collisions alone relax two opposed beams to a Maxwellian, as Boltzmann's equation does.

    python benchmarks/relaxation.py                   # tables and result, half a minute
    python benchmarks/relaxation.py --plot x.svg      # and the figure

No network: N = 20,000 particles in D = 3 dimensions, positions W = 0 held fixed, velocities carried over from round to
round for 40 rounds at rate 1, the largest that is never clipped. Everything is dimensionless: the unit of velocity is
the thermal speed sqrt(T), so the Maxwellian is the standard normal distribution; the unit of length is that over which
the chance to collide falls by a factor e. Momentum and temperature must stay to rounding; T_x, kurtosis, H and the
distance from the normal distribution must end where Maxwellian samples of the same N, momentum and temperature lie.

H is estimated from histograms: H_k = sum over bins p ln(p / width) of component k, averaged over the components, in
nats. 3 H so defined is a lower bound of Boltzmann's H (equal if the components are independent) and, at a given
temperature, smallest for the Maxwellian. That of v_x alone is not: it undershoots while v_x is hotter than the rest.
Bins are Scott's (Biometrika 66, 1979) for a normal sample, 3.49 N^(-1/3) thermal speeds, the same for every state. The
estimate is biased (by about occupied bins / 2N, and by the width), and the Maxwellian samples' in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ko import collisions, rng

N = 20_000
ROUNDS = 40
RATE = 1.0
SPREAD = 0.1  # of a beam, relative to its speed
SEEDS = range(100)
SAMPLES = 400  # Maxwellian samples for the sampling noise
SHOWN = (0, 2, 5, ROUNDS)  # rounds in the figure

# Colors of Okabe and Ito, which all common kinds of color blindness can distinguish.
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2")


class State(NamedTuple):
    """Measurements of one state; see the functions of the same names."""

    temperature: float
    momentum: float  # length of the mean velocity
    t_x: float  # temperature along x
    kurtosis: float  # of v_x, and so are the two below
    ks: float
    h_x: float
    h: float  # mean over the components


class Band(NamedTuple):
    """Mean, standard deviation and 95 % quantile of a measurement over many states."""

    mean: float
    sd: float
    high: float


def two_beams(n: int = N, spread: float = SPREAD, seed: int = 0) -> Tensor:
    """Velocities (n, 3) float64 of two equal beams along +-x, in thermal speeds: momentum 0, temperature 1.

    `spread` is the standard deviation of every component inside a beam, relative to the beam's speed.
    """
    velocities = spread * _normal((n, 3), seed)
    velocities[: n // 2, 0] += 1
    velocities[n // 2 :, 0] -= 1
    return _at_rest(velocities)


def maxwellian(n: int = N, seed: int = 0) -> Tensor:
    """Velocities (n, 3) float64 drawn at thermal equilibrium, with momentum 0 and temperature 1 exactly.

    That is the uniform distribution over all states of this momentum and energy, which collisions leave as it is.
    """
    return _at_rest(_normal((n, 3), seed))


def scattered(scale: float, n: int = N, seed: int = 0) -> Tensor:
    """Positions (n, 3) float64, normal with standard deviation `scale` along each axis."""
    return scale * _normal((n, 3), seed + 1_000_000)  # differs from the seeds of the velocities


def relax(
    velocities: Tensor, positions: Tensor | None = None, *, rate: float = RATE, seed: int = 0, flight: float = 0.0
) -> list[Tensor]:
    """The velocities (N, D) before and after each of 40 rounds of collisions, 41 tensors.

    `positions` are (N, D); None: all 0. `flight` is the time that the particles fly freely after each round.
    """
    positions = torch.zeros_like(velocities) if positions is None else positions
    states = [velocities]
    for step in range(ROUNDS):
        states.append(collisions.hard(positions, states[-1], rate, rng.key(seed, step)))
        positions = positions + flight * states[-1]
    return states


def momentum(velocities: Tensor) -> Tensor:
    """Mean velocity, (D,)."""
    return velocities.mean(dim=0)


def temperatures(velocities: Tensor) -> Tensor:
    """Mean squared deviation of each component from its mean, (D,)."""
    return velocities.var(dim=0, correction=0)


def temperature(velocities: Tensor) -> Tensor:
    """Mean squared deviation per dimension, a scalar."""
    return temperatures(velocities).mean()


def h_of(velocities: Tensor) -> Tensor:
    """H of each component in nats, (D,), from histograms of velocities (N, D) in thermal speeds; see the module."""
    width = bin_width(len(velocities))
    counts = [(column / width).floor().unique(return_counts=True)[1] for column in velocities.unbind(dim=1)]
    shares = [count / len(velocities) for count in counts]
    return torch.stack([(share * (share / width).log()).sum() for share in shares])


def bin_width(n: int) -> float:
    """Bin width of a histogram of n normal numbers by Scott's rule, in standard deviations."""
    return 3.49 * n ** (-1 / 3)


def kurtosis(velocities: Tensor) -> Tensor:
    """Fourth moment of each component over its squared variance, (D,): 3 for a Maxwellian, 1 for two sharp beams."""
    deviations = velocities - velocities.mean(dim=0)
    return deviations.pow(4).mean(dim=0) / deviations.square().mean(dim=0).square()


def ks(velocities: Tensor) -> Tensor:
    """Kolmogorov and Smirnov's distance of each component from the standard normal distribution, (D,) in [0, 1]."""
    below = torch.special.ndtr(velocities.sort(dim=0).values)  # (N, D), share of a Maxwellian that is slower
    steps = torch.arange(len(below) + 1, dtype=below.dtype)[:, None] / len(below)
    return torch.maximum(steps[1:] - below, below - steps[:-1]).amax(dim=0)


def measure(velocities: Tensor) -> State:
    """All measurements of one state (N, D)."""
    h = h_of(velocities)
    return State(
        temperature=float(temperature(velocities)),
        momentum=float(momentum(velocities).norm()),
        t_x=float(temperatures(velocities)[0]),
        kurtosis=float(kurtosis(velocities)[0]),
        ks=float(ks(velocities)[0]),
        h_x=float(h[0]),
        h=float(h.mean()),
    )


def collided(run: Sequence[Tensor]) -> list[float]:
    """Share of particles that collided in each round."""
    return [float((before != after).any(dim=1).double().mean()) for before, after in itertools.pairwise(run)]


def bands(states: Sequence[State]) -> dict[str, Band]:
    """Band of every measurement over several states, by name."""
    columns = torch.tensor(states, dtype=torch.float64).unbind(dim=1)
    spreads = [Band(float(c.mean()), float(c.std()), float(c.quantile(0.95))) for c in columns]
    return dict(zip(State._fields, spreads, strict=True))


def equilibrium(n: int = N, samples: int = SAMPLES) -> dict[str, Band]:
    """Bands of the measurements of Maxwellian samples of n particles."""
    return bands([measure(maxwellian(n, seed)) for seed in range(samples)])


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _at_rest(velocities: Tensor) -> Tensor:
    """The velocities relative to their center of mass, in thermal speeds."""
    deviations = velocities - momentum(velocities)
    return deviations / deviations.square().mean().sqrt()


def print_rounds(run: Sequence[Tensor], expected: dict[str, Band]) -> None:
    """Print one line per round, and the values of a Maxwellian."""
    print("round       collided    T - 1  momentum     T_x  kurtosis       KS  H of v_x        H")
    for number, (share, state) in enumerate(zip([0.0, *collided(run)], map(measure, run), strict=True)):
        drifts = f"{share:8.3f} {state.temperature - 1:8.0e} {state.momentum:9.0e}"
        print(f"{number:<11} {drifts} {_row(*state[2:])}")
    for label, row in (("Maxwellian", 0), ("  +- sd", 1)):
        print(f"{label:38} {_row(*(expected[name][row] for name in State._fields[2:]))}")


def _row(t_x: float, kurtosis: float, ks: float, h_x: float, h: float) -> str:
    return f"{t_x:7.3f} {kurtosis:9.3f} {ks:8.4f} {h_x:9.4f} {h:8.4f}"


def print_verdict(expected: dict[str, Band]) -> None:
    """Print the distance of many runs from the Maxwellian after the last round, and their drift during the run."""
    ends, drifts = [], []
    for seed in SEEDS:
        run = relax(two_beams(seed=seed), seed=seed)
        ends.append(measure(run[-1]))
        drifts.append([_drift(run, temperature), _drift(run, momentum)])
    print(f"\nAfter {ROUNDS} rounds, mean +- sd over {len(ends)} runs, and over {SAMPLES} Maxwellian samples:")
    for name, result in bands(ends).items():
        if name in ("temperature", "momentum"):
            continue
        band = expected[name]
        error = math.hypot(result.sd / math.sqrt(len(ends)), band.sd / math.sqrt(SAMPLES))
        deviation = (result.mean - band.mean) / error
        beyond = sum(getattr(end, name) > band.high for end in ends)
        print(
            f"  {name:9} {result.mean:8.4f} +- {result.sd:.4f}   Maxwellian {band.mean:8.4f} +- {band.sd:.4f}"
            f"   {deviation:+.1f} standard errors; {beyond} runs above its 95 % quantile"
        )
    t, p = torch.tensor(drifts).amax(dim=0).tolist()
    print(f"  largest change in any round of any run: temperature {t:.0e}, momentum {p:.0e}")


def _drift(run: Sequence[Tensor], figure: Callable[[Tensor], Tensor]) -> float:
    """Largest difference of any component of a measurement from its first value."""
    return max(float((figure(state) - figure(run[0])).abs().max()) for state in run)


def print_limits(expected: dict[str, Band]) -> None:
    """Print the results with other positions and with free flight."""
    start = two_beams()
    excess = measure(start).h - expected["h"].mean
    print(f"\nOne run of {ROUNDS} rounds   collisions of a particle     T_x   kurtosis   H above the Maxwellian's")
    for name, scale, flight in (
        ("W = 0", 0.0, 0.0),
        ("W spread 1", 1.0, 0.0),
        ("W spread 3", 3.0, 0.0),
        ("W spread 10", 10.0, 0.0),
        ("free flight 0.1", 0.0, 0.1),
        ("free flight 1", 0.0, 1.0),
    ):
        run = relax(start, scattered(scale), flight=flight)
        end = measure(run[-1])
        share = (end.h - expected["h"].mean) / excess
        print(
            f"  {name:19} {sum(collided(run)):24.3f} {end.t_x:9.3f} {end.kurtosis:10.3f} {share:10.1%} of the start's"
        )


def plot(path: Path, run: Sequence[Tensor], h: Band) -> None:
    """Write the figure: histograms of v_x on the left, H by round on the right. The suffix selects the format."""
    style = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.handlelength": 1.5,
        "svg.hashsalt": "relaxation",  # with no metadata below, the same run gives the same bytes
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_histograms(left, run)
        _draw_h(right, run, h)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=150)


def _draw_histograms(axes: Axes, run: Sequence[Tensor]) -> None:
    width = bin_width(len(run[0]))
    edges = torch.arange(-round(4 / width), round(4 / width) + 1, dtype=torch.float64) * width
    for number, colour in zip(SHOWN, COLORS, strict=True):
        counts = torch.histogram(run[number][:, 0].contiguous(), edges).hist
        density = counts / (len(run[number]) * width)
        axes.stairs(density.tolist(), edges.tolist(), color=colour, label=f"round {number}", linewidth=1.4)
    v = torch.linspace(-3.5, 3.5, 141)
    normal = (-(v**2) / 2).exp() / math.sqrt(2 * math.pi)
    axes.plot(v.tolist(), normal.tolist(), "k--", linewidth=1.1, label="Maxwellian")
    axes.set(xlabel="velocity $v_x$ / thermal speed (dimensionless)", ylabel="density (dimensionless)")
    axes.set(xlim=(-3.5, 3.5), ylim=(0, None))
    axes.legend(loc="upper center")  # between the beams


def _draw_h(axes: Axes, run: Sequence[Tensor], h: Band) -> None:
    states = [measure(velocities) for velocities in run]
    inset = axes.inset_axes((0.42, 0.26, 0.57, 0.34))
    for panel in (axes, inset):
        panel.axhspan(h.mean - 2 * h.sd, h.mean + 2 * h.sd, color="0.8", linewidth=0, label="$\\pm$ 2 sd of a sample")
        panel.axhline(h.mean, color="k", linestyle="--", linewidth=1.1, label="Maxwellian")
        panel.plot(
            [s.h for s in states], "o-", color=COLORS[3], markersize=2.5, linewidth=1, label="mean of components"
        )
    axes.plot([s.h_x for s in states], color=COLORS[0], linewidth=1.4, label="$v_x$ alone", zorder=1.5)
    axes.set(xlabel="round", ylabel="H (nats)", xlim=(-1, len(run)))
    axes.legend(loc="upper right")
    inset.set(xlim=(12.5, len(run)), ylim=(h.mean - 4 * h.sd, h.mean + 5 * h.sd))
    inset.set_title("the same, enlarged", fontsize=8)
    inset.ticklabel_format(useOffset=False)
    inset.tick_params(labelsize=7)


def main() -> None:
    """Print the table of one run, the results of many and the limits; plot the run on request."""
    parser = argparse.ArgumentParser(description="KO's hard collisions relax two beams to a Maxwellian")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="write the figure to this file")
    path = parser.parse_args().plot
    torch.set_num_threads(1)
    expected = equilibrium()
    run = relax(two_beams())
    print_rounds(run, expected)
    print_verdict(expected)
    print_limits(expected)
    if path is not None:
        plot(path, run, expected["h"])


if __name__ == "__main__":
    main()
