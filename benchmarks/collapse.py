"""`python -m benchmarks.collapse`: runs that leave their template's family, and runs that do not.

A family is ten finished runs; a hundred more are watched, and a fault is injected into every fifth,
somewhere between a tenth and three quarters of the run. Losses follow the multi-power law. Runs
differ in seed, which moves the level, makes the loss wander and scatters each measurement; in some
families they differ in length or in the size of the model, too. The judgement uses what a service
would have by then: it judges at the end of each hundredth of a run.

For comparison, the table has what can be found at best: by an observer that knows the family's
exact mean, how a run wanders and scatters, and what the very fault does to the loss, and only has
to decide whether it is there, with false alarms in 2 % of all runs. By the lemma of Neyman and
Pearson there is no better one. No observer can see some faults in the loss so soon.

With `--curves DIR` published trainings are judged, too (`benchmarks/curves.py` documents the
format): each by the others that have its path of rates from the first step on. Those that leave are
then left out, as a service leaves them out, and the others are judged once more.

The constants of `insight/collapse.py` were chosen with `--seed 0`; other seeds were not used for
it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.curves import Run as Published
from benchmarks.curves import read_curves
from pacesetter_service.insight.collapse import (
    CELLS,
    LEAST_MEMBERS,
    SHIFTS,
    Curve,
    Departure,
    Family,
    curve_of,
    is_whole,
    leaves_path,
)
from pacesetter_service.insight.loss_law import Floats, LossLaw

LAW = LossLaw(2.6, 9.0, 0.42, 0.25, 0.02, 0.4, 0.5)

MEMBERS, WATCHED, FAULTY = 10, 100, 20

STARTS = (0.1, 0.75)
"""The parts of a run between which a fault begins: near its end a rate has hardly any effect."""

SOON = 0.05
"""The part of a run within which a fault must be found."""

PIECES = 128
"""Into how many pieces the law divides a schedule."""

LEVEL, WANDER, FORGETS = 0.002, 0.0015, 0.1
"""How far apart runs are by their level and by how they wander, as fractions of the loss; and over
which part of a run they forget how they have wandered.
"""

LIMIT = NormalDist().inv_cdf(1 - 0.01 / SHIFTS)
"""The deviations that the best observer requires: each of its looks may be wrong, up or down."""

SURE = LIMIT + NormalDist().inv_cdf(0.999)
"""The deviations at which it overlooks one fault of a thousand."""

Rates = Callable[[Floats], Floats]
"""The learning rate as a fraction of the peak, by the part of the run that is trained."""


def cosine(part: Floats) -> Floats:
    """Warm up over a fiftieth, and fall as a cosine to a tenth."""
    fall = 0.1 + 0.9 * (1 + np.cos(np.pi * (part - 0.02) / 0.98)) / 2
    return np.minimum(np.maximum(part, 1e-3) / 0.02, fall)


def wsd(part: Floats) -> Floats:
    """Warm up over a fiftieth, stay, and fall linearly to zero over the last fifth."""
    return np.minimum(np.minimum(np.maximum(part, 1e-3) / 0.02, 1.0), (1 - part) / 0.2)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the runs of a family are made.

    Attributes:
        name: In a few words.
        rates: Their schedule.
        scatter: The deviation of a measurement, as a fraction.
        measured: How many times a run is measured.
        lengths: The least and the most steps of a run.
        sizes: By up to which factor, either way, the part of the loss above the floor differs.
    """

    name: str
    rates: Rates
    scatter: float = 0.005
    measured: int = 1000
    lengths: tuple[int, int] = (20_000, 20_000)
    sizes: float = 1.0


KINDS = (
    Kind("cosine, seeds", cosine),
    Kind("cosine, seeds, noisy", cosine, scatter=0.015, measured=2000),
    Kind("cosine, seeds, seldom measured", cosine, scatter=0.002, measured=100),
    Kind("stable and decay, lengths", wsd, lengths=(10_000, 40_000)),
    Kind("cosine, sizes", cosine, sizes=1.3),
)


class Run:
    """A run of a family: its losses, before a fault is injected."""

    def __init__(self, kind: Kind, random: np.random.Generator) -> None:
        """Draw a run."""
        self.kind, self.random = kind, random
        total = int(random.integers(kind.lengths[0], kind.lengths[1] + 1))
        self.rates = kind.rates((np.arange(total) + 0.5) / total)
        self.steps = np.unique(np.linspace(total // 200, total - 1, kind.measured).astype(np.int64))
        size = kind.sizes ** random.uniform(-1, 1)
        self.law = LAW._replace(scale=LAW.scale * size, gain=LAW.gain * size)
        self.level = LEVEL * random.normal()
        keep = float(np.exp(-1 / FORGETS / len(self.steps)))
        pushes = random.normal(size=len(self.steps)) * np.sqrt(1 - keep**2)
        self.wander = WANDER * _filtered(pushes, keep, float(random.normal()))

    @property
    def parts(self) -> Floats:
        """The places where it is measured, as parts of the run."""
        return self.steps / len(self.rates)

    def losses(self, rates: Floats | None = None) -> Floats:
        """Return what is measured, by default at the family's rates."""
        warm = int(np.argmax(self.rates))
        # The law holds after the warmup; before it, the loss falls from that of a guess.
        smooth = _by_law(self.law, self.rates if rates is None else rates, self.steps, warm)
        smooth += 6 * np.maximum(1 - self.steps / (warm + 1), 0)
        scattered = 1 + self.kind.scatter * self.random.normal(size=len(self.steps))
        found: Floats = smooth * np.exp(self.level + self.wander) * scattered
        return found


def _by_law(law: LossLaw, rates: Floats, steps: NDArray[np.int64], warm: int) -> Floats:
    """Return the losses by the law where the rate may rise again: what it gained is lost.

    `Path` is for rates below the peak of the warmup, whose falls alone it gathers.
    """
    sums = np.concatenate(([0.0], np.cumsum(rates)))
    at = np.unique(np.linspace(warm, len(rates) - 1, PIECES).astype(np.int64))
    levels = np.maximum(rates[at], 1e-3)
    drops = -np.diff(levels, prepend=1.0)
    moved = sums[np.maximum(steps, warm + 1)]
    since = np.maximum(moved[:, None] - sums[at][None, :], 0.0)
    gained = 1 - (1 + law.speed * levels**-law.gamma * since) ** -law.beta
    found: Floats = law.floor + law.scale * moved**-law.alpha - law.gain * (gained @ drops)
    return found


def _filtered(pushes: Floats, keep: float, start: float) -> Floats:
    found, last = np.empty(len(pushes)), start
    for at, push in enumerate(pushes):
        last = keep * last + push
        found[at] = last
    return found


def rate_too_high(run: Run, start: float) -> Floats:
    """Train on at three times the rate."""
    return _at_other_rate(run, start, 3.0)


def rate_too_low(run: Run, start: float) -> Floats:
    """Train on at a tenth of the rate."""
    return _at_other_rate(run, start, 0.1)


def _at_other_rate(run: Run, start: float, factor: float) -> Floats:
    late = np.arange(len(run.rates)) >= start * len(run.rates)
    return run.losses(np.where(late, factor, 1.0) * run.rates)


def damaged_data(run: Run, start: float) -> Floats:
    """Make a part of each batch garbage: the loss is 3 % higher at once."""
    return run.losses() * np.where(run.parts >= start, 1.03, 1.0)


def no_progress(run: Run, start: float) -> Floats:
    """Stop learning, and forget two percent over a fiftieth of the run."""
    losses = run.losses()
    late = run.parts >= start
    if late.any():
        before = run.parts[late.argmax()]
        level = losses[max(late.argmax() - 20, 0) : late.argmax() + 1].mean()
        scattered = losses[late] / np.interp(run.parts[late], run.parts, _smooth(losses))
        losses[late] = (
            level * scattered * (1 + 0.01 * np.minimum((run.parts[late] - before) * 50, 1))
        )
    return losses


def repeated_data(run: Run, start: float) -> Floats:
    """Repeat the same data again and again: the loss falls by 3 % over a fiftieth of the run."""
    return run.losses() * (1 - 0.03 * np.clip((run.parts - start) * 50, 0, 1))


def divergence(run: Run, start: float) -> Floats:
    """Let the loss grow, twice as fast with each hundredth of the run."""
    gone = np.maximum(run.parts - start, 0) * CELLS
    grown: Floats = 1 + 0.004 * (np.exp2(np.minimum(gone, 12)) - 1)
    return run.losses() * grown


def slow_drift(run: Run, start: float) -> Floats:
    """Let the loss rise against the family by 0.8 % with each hundredth of the run."""
    return run.losses() * (1 + 0.008 * CELLS * np.maximum(run.parts - start, 0))


def _smooth(losses: Floats) -> Floats:
    width = max(len(losses) // 50, 1)
    padded = np.pad(losses, (width // 2, width - 1 - width // 2), mode="edge")
    found: Floats = np.convolve(padded, np.ones(width) / width, "valid")
    return found


FAULTS: tuple[Callable[[Run, float], Floats], ...] = (
    rate_too_high,
    rate_too_low,
    damaged_data,
    no_progress,
    repeated_data,
    divergence,
    slow_drift,
)


@dataclass(frozen=True, slots=True)
class Watched:
    """The result of watching a run.

    Attributes:
        fault: What was injected; None if nothing was.
        false: Whether an alarm came before a fault, or without one.
        delay: The part of the run after which a fault was found; None if it was not.
        clear: How many deviations the best observer sees of it within `SOON`.
    """

    fault: str | None
    false: bool
    delay: float | None = None
    clear: float = 0.0


def watched(family: Family, run: Run, fault: Callable[[Run, float], Floats] | None) -> Watched:
    """Watch a run to its end."""
    start = float(run.random.uniform(*STARTS))
    before = run.random.bit_generator.state
    losses = run.losses() if fault is None else fault(run, start)
    curve = curve_of("run", run.parts, losses)
    departures = family.judged(curve).departures
    # A judgement at the end of a cell uses the cells up to it.
    ends = [(each.found + 1) / CELLS for each in departures]
    late = [end - start for end in ends if end > start]
    if fault is None:
        return Watched(None, bool(ends))
    run.random.bit_generator.state = before  # the same run, with the same scatter
    clear = _clear(run, curve, curve_of("run", run.parts, run.losses()), start)
    false = any(end <= start for end in ends)
    return Watched(fault.__name__, false, min(late, default=None), clear)


def _clear(run: Run, faulty: Curve, healthy: Curve, start: float) -> float:
    """Return how many deviations the best observer sees of a fault within `SOON`.

    With `d` what the fault does to the logarithm of the loss in each cell, and `S` the covariance
    of what a healthy run does, that is `sqrt(d' S^-1 d)`.
    """
    cells = np.flatnonzero(faulty.counts)
    cells = cells[(cells + 1) / CELLS <= start + SOON]
    made = np.log(faulty.means[cells] / healthy.means[cells])
    apart = np.abs(cells[:, None] - cells) / CELLS
    healthy_runs = LEVEL**2 + WANDER**2 * np.exp(-apart / FORGETS)
    scatter = np.diag(run.kind.scatter**2 / faulty.counts[cells])
    return float(np.sqrt(made @ np.linalg.solve(healthy_runs + scatter, made)))


def family_of(kind: Kind, random: np.random.Generator, members: int = MEMBERS) -> Family:
    """Return a family of finished runs."""
    made = [Run(kind, random) for _ in range(members)]
    return Family([_curve(each) for each in made])


def _curve(run: Run) -> Curve:
    return curve_of("member", run.parts, run.losses())


def hundred(kind: Kind, random: np.random.Generator) -> list[Watched]:
    """Watch a hundred runs of a family, with a fault in every fifth."""
    family = family_of(kind, random)
    every = WATCHED // FAULTY
    return [
        watched(
            family,
            Run(kind, random),
            FAULTS[index // every % len(FAULTS)] if index % every == 0 else None,
        )
        for index in range(WATCHED)
    ]


def published(runs: Sequence[Published]) -> Iterator[str]:
    """Judge whole trainings of others by those of their path, and print which left it."""
    whole = [run for run in runs if run.steps[0] == 0]
    curves = [curve_of(run.name, run.steps / run.total, run.losses) for run in whole]
    forms = [run.rates[(run.total * (np.arange(CELLS) + 0.5) / CELLS).astype(int)] for run in whole]
    left: dict[int, Departure] = {}
    for _ in range(2):
        told, least = dict[int, Departure](), list[float]()
        for index, curve in enumerate(curves):
            family = [
                other
                for place, other in enumerate(curves)
                if place not in {index, *left}
                and is_whole(other)
                and leaves_path(forms[place], forms[index]) == CELLS
            ]
            if len(family) >= LEAST_MEMBERS:
                found = Family(family)
                least.append(found.least)
                for departure in found.judged(curve).departures[:1]:
                    told[index] = departure
        left = told
    yield f"{len(least)} published runs judged, {len(left)} left their family"
    yield f"shifts of {min(least):.1%} to {max(least):.1%} are seen"
    for index, departure in left.items():
        when = (departure.found + 1) / CELLS
        yield f"{whole[index].trunk}, {whole[index].name}: {departure.apart:+.0%} after {when:.0%}"


def main() -> None:
    """Watch, and print how soon faults were found, and the false alarms."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collapse", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="another one draws other families")
    parser.add_argument("--families", type=int, default=10, help="of each kind, with 100 runs each")
    parser.add_argument("--curves", type=FilePath, metavar="DIR", help="published trainings, too")
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    print(
        f"{'':<31} {'faults':>6} {'in 5 %':>7} {'at best':>7} {'of sure ones':>14}"
        f" {'found':>6} {'median':>6} {'false alarms':>12}"
    )
    everything = list[Watched]()
    for kind in KINDS:
        found = [each for _ in range(options.families) for each in hundred(kind, random)]
        everything += found
        _print(kind.name, found)
    for fault in FAULTS:
        mine = [each for each in everything if each.fault == fault.__name__]
        _print(fault.__name__.replace("_", " "), mine)
    _print("all", everything)
    if options.curves is not None:
        print(*published(read_curves(options.curves)), sep="\n")


def _print(name: str, found: list[Watched]) -> None:
    faults = [each for each in found if each.fault is not None]
    delays = [each.delay for each in faults if each.delay is not None]
    soon = sum(each <= SOON for each in delays)
    false = sum(each.false for each in found)
    best = sum(NormalDist(LIMIT, 1).cdf(each.clear) for each in faults) / len(faults)
    sure = [each for each in faults if each.clear >= SURE]
    seen = sum(each.delay is not None and each.delay <= SOON for each in sure)
    print(
        f"{name:<31} {len(faults):>6} {soon / len(faults):>7.1%} {best:>7.1%}"
        f" {f'{seen} of {len(sure)}':>14} {len(delays) / len(faults):>6.1%}"
        f" {float(np.median(delays)) if delays else 1:>6.1%} {f'{false} of {len(found)}':>12}"
    )


if __name__ == "__main__":
    main()
