"""The newest plans, in memory: who asks again for the same is answered without another fit."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.insight.evidence import (
    Effect,
    Evidence,
    Finding,
    LeftOut,
    Relation,
    Training,
)
from pacesetter_service.insight.loss_fit import Fitted
from pacesetter_service.insight.loss_law import Floats
from pacesetter_service.insight.planner import Outlook

MOST = 64
"""How many are kept."""

POINTS = 120
"""About how many measurements a plan shows of what was before."""


@dataclass(frozen=True, slots=True)
class Source:
    """A training that a plan rests on.

    Attributes:
        session: Its name.
        relation: What it is to the one that is planned.
        measured: How many measurements of its own it has.
        decayed: How many of them at a rate far below the peak.
        last: The last step that it was measured at; None if it was not.
    """

    session: str
    relation: Relation
    measured: int
    decayed: int
    last: int | None


def sources_of(evidence: Evidence, first: int) -> tuple[Source, ...]:
    """Return what a plan rests on, where steps are counted from `first`."""
    return tuple(
        Source(
            each.session,
            each.relation,
            int(each.own.sum()),
            each.decayed() if each.peak else 0,
            int(each.steps[each.own][-1]) + first if each.own.any() else None,
        )
        for each in evidence.all
    )


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Some of what was measured of a training so far: steps, their rates, and the losses there."""

    steps: NDArray[np.int64]
    rates: Floats
    losses: Floats


def measured_of(own: Training, first: int) -> Measured:
    """Return about `POINTS` of a training's measurements, where steps are counted from `first`."""
    seen = own.seen()
    known = seen.steps < len(own.rates)
    steps, losses = seen.steps[known], seen.losses[known]
    chosen = np.unique(np.linspace(0, max(len(steps) - 1, 0), POINTS).round().astype(np.int64))
    chosen = chosen[: len(steps)]
    return Measured(steps[chosen] + first, own.rates[steps[chosen]], losses[chosen])


@dataclass(frozen=True, slots=True)
class Plan:
    """What was planned.

    Attributes:
        id: A short text that changes with what was asked and with the record behind it.
        session: The name of the session.
        metric: The loss that it is by.
        horizon: The first step that could still change.
        effect: What is left of it: None is all, else `ranking` or `nothing`.
        findings: Why less is said than was asked for.
        measured: The training's own losses so far.
        sources: What it rests on.
        left_out: Sessions that say nothing about this one.
        fitted: The law; None if there is none.
        outlooks: What was looked at, the best first.
    """

    id: str
    session: str
    metric: str
    horizon: int
    effect: Effect | None
    findings: tuple[Finding, ...]
    measured: Measured
    sources: tuple[Source, ...]
    left_out: tuple[LeftOut, ...]
    fitted: Fitted | None
    outlooks: tuple[Outlook, ...]


class Plans:
    """Plans by their ids; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    def find(self, plan_id: str) -> Plan | None:
        """Return a plan; None if it is not remembered."""
        with self._lock:
            found = self._plans.get(plan_id)
            if found is not None:
                self._plans.move_to_end(plan_id)
            return found

    def keep(self, plan: Plan) -> None:
        """Remember a plan; the one that was not asked for longest makes room."""
        with self._lock:
            self._plans[plan.id] = plan
            self._plans.move_to_end(plan.id)
            while len(self._plans) > MOST:
                self._plans.popitem(last=False)
