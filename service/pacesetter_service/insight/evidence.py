"""What is known of how a training's loss follows its learning rate, and whether that is enough.

How much a decay gains is known from a decay of the training itself, of a fork of its lineage, or of
a session of the same template at the same peak rate. Nothing else shows it: a law that was fitted
to decays at another rate, or to those of other trainings, is wrong by more than it is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.insight.loss_fit import Fitted, Seen, settled
from pacesetter_service.insight.loss_law import Floats, Path

Relation = Literal["own", "fork", "donor"]

Effect = Literal["nothing", "ranking"]
"""What is left of a plan: nothing, or only the ranking of the candidates."""

LEAST = 16
"""The fewest measurements after the warmup from which anything is predicted."""

DECAYED = 0.7
"""A rate below this part of the peak counts as a decay."""

LEAST_DECAYED = 4
"""The fewest measurements at such rates."""

SAME_RATE = 1e-6
"""Peak rates that differ by less than this fraction count as the same."""

ALIKE = 0.02
"""The fraction by which the losses of a donor may differ at the same steps."""

FOLLOWS, RANKS = 0.0075, 0.02
"""How far, as a fraction, measurements may scatter around the law for a loss to be predicted, and
for candidates to be ranked at least.

Pretrainings by others scatter by less than 0.003. With trainings that scattered by 0.01, the choice
among candidates was good, but the losses were off by more than the bands
(`benchmarks/planned.py`).
"""

AHEAD = 12.0
"""How many times as far as was measured, in sums of the rate, an end may lie."""


class Finding(NamedTuple):
    """Why a plan says less than was asked for.

    Attributes:
        code: For programs; never changes.
        message: What the problem is, and what helps.
        effect: What is left of the plan.
    """

    code: str
    message: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Training:
    """One training: its rates, and its measurements.

    Attributes:
        session: The session's name.
        relation: How it is related to the training that is planned.
        rates: The learning rate of each sealed step, from the first one on; float64[n].
        steps: The measured steps, counted from that first step; ascending, int64[m].
        losses: The losses measured there; float64[m].
        shared: For a fork or a donor, how many of its first steps belong to the planned training.
    """

    session: str
    relation: Relation
    rates: Floats
    steps: NDArray[np.int64]
    losses: Floats
    shared: int = 0

    @property
    def peak(self) -> float:
        """The largest rate; 0 before the first step."""
        return float(self.rates.max()) if len(self.rates) else 0.0

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which of its finite measurements are its own, and not another training's."""
        return (self.steps >= self.shared) & np.isfinite(self.losses)

    def seen(self) -> Seen:
        """Return its own measurements on its path."""
        return Seen(Path(self.rates), self.steps[self.own], self.losses[self.own])

    def decayed(self) -> int:
        """Return how many of its own measurements were made at a rate far below the peak."""
        seen = self.seen()
        late = seen.steps[seen.steps > settled(seen.path)]
        late = late[(late > 0) & (late <= len(self.rates))]
        return int((seen.path.rates[late - 1] < DECAYED).sum())


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A session that says nothing about this one, and why."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a plan rests on.

    Attributes:
        own: The training that is planned.
        others: Forks and donors that are evidence for it.
        left_out: Those that are not.
    """

    own: Training
    others: tuple[Training, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def all(self) -> tuple[Training, ...]:
        """All trainings that are evidence."""
        return (self.own, *self.others)


def gathered(own: Training, others: Sequence[Training]) -> Evidence:
    """Return the evidence for a training, without the trainings that say nothing about it."""
    spoken, silent = list[Training](), list[LeftOut]()
    for each in others:
        reason = _apart(own, each)
        speaks = reason or (_aligned(own, each) if each.relation == "donor" else each)
        if isinstance(speaks, Training):
            spoken.append(speaks)
        else:
            silent.append(LeftOut(each.session, speaks))
    return Evidence(own, tuple(spoken), tuple(silent))


def _apart(own: Training, other: Training) -> str | None:
    """Say why a session says nothing about a training; None if it does."""
    if not other.own.any() or other.peak == 0:
        return "it has reported nothing of its own of this metric, or trained at no rate above 0"
    if abs(other.peak - own.peak) > SAME_RATE * own.peak:
        return (
            f"its learning rate rose to {other.peak:.6g}, this one's to {own.peak:.6g}: a decay"
            " at another rate says nothing about this one"
        )
    if (other.losses[other.own] <= 0).any():
        return "its values are not all positive"
    if other.decayed() < LEAST_DECAYED:
        return "it has not been measured at a decayed learning rate"
    return None


def _aligned(own: Training, other: Training) -> Training | str:
    """Return a donor with its losses at the level of this training's, or say why it differs.

    A donor shows what a decay gains, but not the level of the loss. A small difference at the
    constant rate, as between two seeds, would otherwise be taken for a gain.
    """
    mine, theirs = own.seen(), other.seen()
    flat = [each.steps[~each.path.decays(each.steps)] for each in (mine, theirs)]
    if min(map(len, flat)) < LEAST:
        return "there are no steps at which both were measured at the constant rate"
    first = max(settled(mine.path), settled(theirs.path), int(flat[0][0]), int(flat[1][0]))
    last = min(int(flat[0][-1]), int(flat[1][-1]))
    if last <= first:
        return "there are no steps at which both were measured at the constant rate"
    means = [
        float(np.mean(np.log(np.maximum(np.interp(at, each.steps, each.losses), 1e-9))))
        for at in [np.linspace((first + last) / 2, last, 100)]
        for each in (mine, theirs)
    ]
    apart = means[1] - means[0]
    if abs(apart) > ALIKE:
        return (
            f"its loss is {abs(apart):.1%} {'above' if apart > 0 else 'below'} this one's at the"
            " same steps: another model, or other data"
        )
    return replace(other, losses=other.losses * np.exp(-apart))


def doubts(evidence: Evidence) -> list[Finding]:
    """Return the problems of the measurements, before anything is fitted to them."""
    own = evidence.own
    if not len(own.rates) or own.peak == 0:
        return [Finding("too_few", "No learning rate above 0 was sealed yet.", "nothing")]
    if (own.losses[np.isfinite(own.losses)] <= 0).any():
        return [
            Finding(
                "not_a_loss",
                "Some values are 0 or below: that is no loss that a power law describes."
                " Name a metric that is one.",
                "nothing",
            )
        ]
    seen = own.seen()
    known = seen.steps > settled(seen.path)
    if known.sum() < LEAST:
        return [
            Finding(
                "too_few",
                f"{int(known.sum())} values were measured behind the warmup, and fewer than"
                f" {LEAST} say nothing. Ask again later, or measure more often.",
                "nothing",
            )
        ]
    found = _not_falling(seen.losses[known])
    if found is not None:
        return [found]
    if not any(each.decayed() >= LEAST_DECAYED for each in evidence.all):
        return [
            Finding(
                "no_decay",
                "Neither this training nor a fork of it, nor one of the same template at the same"
                " peak rate, was measured at a decayed learning rate. So how much a decay gains"
                " is not known here: candidates are ranked, and no loss is predicted. Train a"
                " probe: a fork that is cooled down now, over some steps.",
                "ranking",
            )
        ]
    return []


def _not_falling(losses: Floats) -> Finding | None:
    part = max(len(losses) // 4, 4)
    early, late = losses[:part], losses[-part:]
    fall = float(early.mean() - late.mean())
    if fall <= 0:
        return Finding(
            "not_falling",
            f"It came from {early.mean():.4g} to {late.mean():.4g}: it does not fall. The law is"
            " one of losses; name the metric that is the loss.",
            "nothing",
        )
    error = float(np.hypot(early.std(ddof=1), late.std(ddof=1)) / np.sqrt(part))
    if fall < 3 * error:
        return Finding(
            "too_noisy",
            f"It fell by {fall:.3g}, and its scatter alone makes {error:.3g} of that uncertain."
            " Plan by a metric that scatters less, such as a loss on held out data.",
            "nothing",
        )
    return None


def doubts_of_fit(fitted: Fitted) -> list[Finding]:
    """Return the problems of the fit: whether the measurements follow the law."""
    if fitted.error <= FOLLOWS:
        return []
    effect: Effect = "ranking" if fitted.error <= RANKS else "nothing"
    believed = (
        f"no loss is predicted beyond {FOLLOWS:.2%}, so that candidates are ranked only"
        if effect == "ranking"
        else f"it is not believed beyond {RANKS:.0%}"
    )
    return [
        Finding(
            "does_not_follow",
            f"The measurements scatter by {fitted.error:.2%} around the law that fits them best:"
            f" {believed}. Plan by a metric that scatters less, such as a loss on held out data.",
            effect,
        )
    ]
