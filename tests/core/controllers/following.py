"""Drive a rule: by itself, obeyed immediately, or in a session that trains step by step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, ControllerState, Sample, Verdict
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec


class Followed(NamedTuple):
    """The levels and the verdict after each measurement, and the state after the last one."""

    levels: list[dict[str, float]]
    verdicts: list[Verdict | None]
    state: ControllerState

    @property
    def rates(self) -> list[float]:
        """The level of the only group after each measurement."""
        return [levels[""] for levels in self.levels]

    @property
    def said(self) -> list[Verdict]:
        """The verdicts that were returned."""
        return [verdict for verdict in self.verdicts if verdict is not None]


def follow(
    rule: Controller,
    values: Iterable[float],
    base: float | Mapping[str, float] = 0.1,
    restart_at: int | None = None,
) -> Followed:
    """Feed values to a rule and obey it; at `restart_at` its state goes through JSON and back."""
    bases = dict(base) if isinstance(base, Mapping) else {"": base}
    levels, state = dict(bases), rule.init()
    followed: list[dict[str, float]] = []
    verdicts: list[Verdict | None] = []
    for step, value in enumerate(values):
        if step == restart_at:
            state = type(state).model_validate(jsonable(state))
        seen = Sample(rule.metric, step, value, dict(levels), bases)
        state, verdict = (now := rule.observe(state, seen)).state, now.verdict
        if verdict is not None:
            assert verdict.reason
            assert all(0 < level < math.inf for level in verdict.levels.values()), verdict
            levels |= verdict.levels
        followed.append(dict(levels))
        verdicts.append(verdict)
    return Followed(followed, verdicts, state)


def train(spec: Mapping[str, Any], values: Iterable[float]) -> tuple[Session, list[list[float]]]:
    """Train one step for each value: ask for the rates of all groups, then report the value."""
    session = create(SessionSpec.model_validate({"name": "trained", "base_lr": 0.1, **spec}))
    metric = session.spec.controllers[0].metric
    rates = []
    for step, value in enumerate(values):
        events = decide(session, Seal(step, 1)).events
        session = evolve_all(session, events)
        assert isinstance(events[-1], Sealed)
        rates.append([float(row[0]) for row in events[-1].values.values()])
        report = Report((Reading(0, step, metric, value),))
        session = evolve_all(session, decide(session, report).events)
    return session, rates
