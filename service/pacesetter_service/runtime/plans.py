"""The newest plans, in memory: who asks again for the same is answered without another fit."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from pacesetter_service.insight.evidence import Effect, Evidence, Finding, LeftOut, Relation
from pacesetter_service.insight.loss_fit import Fitted
from pacesetter_service.insight.planner import Outlook

MOST = 64
"""How many are kept."""


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
        sources: What it rests on.
        left_out: Sessions that say nothing about this one.
        fitted: The law; None if there is none.
        outlooks: What was looked at, the best first.
        blind: For each end the loss that a law expects that knows no learning rate.
    """

    id: str
    session: str
    metric: str
    horizon: int
    effect: Effect | None
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]
    left_out: tuple[LeftOut, ...]
    fitted: Fitted | None
    outlooks: tuple[Outlook, ...]
    blind: Mapping[int, float]


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
