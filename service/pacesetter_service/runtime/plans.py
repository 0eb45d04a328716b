"""The newest plans, in memory: a repeated question is answered without another fit."""

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
"""How many plans are kept."""

POINTS = 120
"""About how many past measurements a plan shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """A training that a plan rests on.

    Attributes:
        session: Its name.
        relation: How it is related to the planned one.
        measured: How many measurements it has itself.
        decayed: How many of them are at a rate far below the peak.
        last: The last step that it was measured at; None if it was not.
    """

    session: str
    relation: Relation
    measured: int
    decayed: int
    last: int | None


def sources_of(evidence: Evidence, first: int) -> tuple[Source, ...]:
    """Return what a plan rests on, with steps counted from `first`."""
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
    """A sample of a training's measurements so far: steps, their rates and their losses."""

    steps: NDArray[np.int64]
    rates: Floats
    losses: Floats


def measured_of(own: Training, first: int) -> Measured:
    """Return about `POINTS` of a training's measurements, with steps counted from `first`."""
    known = own.own & (own.steps < len(own.rates))
    steps, losses = own.steps[known], own.losses[known]
    chosen = np.unique(np.linspace(0, max(len(steps) - 1, 0), POINTS).round().astype(np.int64))
    chosen = chosen[: len(steps)]
    return Measured(steps[chosen] + first, own.rates[steps[chosen]], losses[chosen])


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan.

    Attributes:
        id: A short text that changes with the question and with the record behind it.
        session: The name of the session.
        metric: The loss that it predicts.
        horizon: The first step that could still change.
        effect: How much of the answer remains: None for all, otherwise `ranking` or `nothing`.
        findings: Why it says less than was asked for.
        measured: The training's own losses so far.
        sources: The trainings that it rests on.
        left_out: Sessions that say nothing about this one.
        fitted: The fitted law; None if there is none.
        outlooks: The candidates that were considered, best first.
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
    """Plans by their ids; callable from any thread."""

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
        """Remember a plan; the least recently used one makes room."""
        with self._lock:
            self._plans[plan.id] = plan
            self._plans.move_to_end(plan.id)
            while len(self._plans) > MOST:
                self._plans.popitem(last=False)
