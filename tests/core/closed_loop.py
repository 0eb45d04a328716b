"""Fixtures of the tests of the closed loop: a recording controller, and sessions under it."""

import random
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pacesetter_service.core.commands import Command, Reading, Report, Seal
from pacesetter_service.core.controllers import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.controllers.base import Advice
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Decided, Event, Missed, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec


class Record(ControllerState):
    """Everything that a recorder was shown: metric, step and value."""

    shown: tuple[tuple[str, int, float], ...] = ()


class Recorder(Controller):
    """Records all that it is shown, and multiplies the level by `factor` each time; has no kind."""

    State: ClassVar[type[ControllerState]] = Record
    formula: ClassVar[str] = "level * factor"
    source: ClassVar[str] = "here"

    also: tuple[str, ...] = ()
    factor: float = 1.0
    advice: Advice | None = None
    finish: bool = False

    @property
    def watches(self) -> tuple[str, ...]:
        """The metrics whose measurements it sees."""
        return (self.metric, *self.also)

    def init(self) -> Record:
        """Return an empty record."""
        return Record()

    def observe(self, state: ControllerState, seen: Sample) -> Observation:
        """Record a value, and return the decision that the test wants."""
        assert isinstance(state, Record)
        after = Record(shown=(*state.shown, (seen.metric, seen.step, seen.value)))
        levels = {group: level * self.factor for group, level in seen.levels.items()}
        verdict = Verdict(
            f"{self.metric} was {seen.value!r}", levels, advice=self.advice, finish=self.finish
        )
        return Observation(after, verdict)


class Guard(Recorder):
    """A recorder that sees non-finite values under the policy `guard`."""

    guards: ClassVar[bool] = True


def session(*controllers: Any, **spec: Any) -> Session:
    """Create a session; by default with one recorder of `loss` and a base rate of 1."""
    base = {} if "groups" in spec else {"base_lr": 1.0}
    rules = controllers or (Recorder(metric="loss"),)
    return create(
        SessionSpec.model_validate({"name": "loop", **base, "controllers": rules, **spec})
    )


class Loop:
    """A session in progress, with all its events so far."""

    def __init__(self, start: Session) -> None:
        self.session = start
        self.events: list[Event] = []

    def give(self, command: Command) -> tuple[Event, ...]:
        """Submit a command, and apply what follows from it."""
        events = decide(self.session, command).events
        self.session = evolve_all(self.session, events)
        self.events += events
        return events

    def seal(self, start: int, count: int = 1) -> Self:
        """Ask for steps."""
        self.give(Seal(start, count, at=start, pace=1e-4))
        return self

    def report(self, step: int, by_rank: dict[int, float], metric: str = "loss") -> Self:
        """Report a step for some ranks, in the given order."""
        for rank, value in by_rank.items():
            self.give(Report((Reading(rank, step, metric, value),)))
        return self

    def train(self, values: Iterable[float], metric: str = "loss") -> Self:
        """Train step by step as a lone trainer does, reporting a value at each."""
        for value in values:
            step = self.session.horizon
            self.seal(step).report(step, {0: value}, metric)
        return self.seal(self.session.horizon)

    def shown(self, index: int = 0) -> list[tuple[str, int, float]]:
        """Return what a recorder was shown."""
        record = self.session.control.states[index]
        assert isinstance(record, Record)
        return list(record.shown)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def missed(self) -> list[Missed]:
        """The steps that went without a measurement."""
        return self.of(Missed)

    @property
    def decided(self) -> list[Decided]:
        """What controllers have decided."""
        return self.of(Decided)

    @property
    def sealed(self) -> dict[int, float]:
        """The learning rate of each sealed step."""
        return {
            event.start + offset: float(value)
            for event in self.of(Sealed)
            for offset, value in enumerate(event.values["lr"])
        }


def shuffled(items: Iterable[Any], order: random.Random) -> list[Any]:
    """Return the items in another order."""
    several = list(items)
    order.shuffle(several)
    return several
