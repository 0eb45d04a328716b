"""Why a value is what it is: reads the log for `insight/explain.py`, which words the answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from pacesetter_service.core.attempts import spans
from pacesetter_service.core.cost import Check
from pacesetter_service.insight.explain import (
    Explanation,
    Recorded,
    enough,
    explain,
    near,
    of_this_description,
)
from pacesetter_service.runtime.queries.events import LoggedEvent, logged_event
from pacesetter_service.runtime.queries.values import answered, block_of
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.port import Stored
from pacesetter_service.store.store import Store

MOST = 1_000
"""How many changes are read before only orders and changes that replace a law are."""

MOST_OF_LAWS = 50
"""How many of those orders and changes are read."""

KINDS = ("decided", "acted", "forked")
"""The events that change values."""

MISHAPS = 5
"""The most missed measurements and passed boundaries that are reported."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """Why the values at a step are what they are.

    Attributes:
        explanation: The reason for each value.
        causes: For each series the event that caused its value; None if no event did.
        attempt: The running attempt of the session.
        horizon: The first step that is not sealed.
    """

    explanation: Explanation
    causes: Mapping[str, LoggedEvent | None]
    attempt: int
    horizon: int


async def explain_step(
    service: Service, name: str, step: int, show: Callable[[ExplainedStep], T]
) -> T:
    """Return what `show` makes of why the values at a step are what they are, or would be.

    Args:
        service: The service.
        name: The session's name.
        step: The step.
        show: Makes the answer from the explanation, on the thread that finds it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        StepOutOfRangeError: The session does not have that step.
    """
    entry = await service.writer.find(name)
    stored = entry.stored

    def answer(check: Check) -> T:
        block = block_of(service.store, entry, step, 1, check)
        values = dict(zip(stored.session.timelines, block[:, 0].tolist(), strict=True))
        return show(_explained(service.store, stored, step, values))

    return await answered(service, entry, step, step + 1, answer)


def _explained(store: Store, stored: Stored, step: int, values: dict[str, float]) -> ExplainedStep:
    session = stored.session
    found = _explanation(store, stored, step, values)
    spec = session.spec.at(step)
    causes = {
        name: None if why.cause is None else logged_event(why.cause, spec)
        for name, why in found.series.items()
    }
    return ExplainedStep(found, causes, session.attempt.number, session.horizon)


def _explanation(store: Store, stored: Stored, step: int, values: dict[str, float]) -> Explanation:
    # The past of a fork may have another description.
    session = replace(stored.session, spec=stored.session.spec.at(step))
    changes, whole = changes_at(store, stored, step)
    first = near(session.spec, step)
    mishaps = store.events_until(stored, step, kinds=("missed", "boundary_passed"), since=first)
    nearby = list(islice(mishaps, MISHAPS))
    found = explain(session, step, values, changes, nearby[::-1], whole=whole)
    return replace(found, notes=(*_lived(stored, step), *found.notes))


def _lived(stored: Stored, step: int) -> Iterator[str]:
    """Return a note if a step was sealed in an earlier attempt than the running one."""
    session = stored.session
    [*_, (ref, *_)] = spans(stored.lineage, end=step + 1)
    if ref.session_id != stored.id or ref.attempt < 1:  # steps of an imported fork
        yield f"Step {step} was sealed before this session was forked from another one."
    elif ref.attempt != session.attempt.number:
        yield (
            f"Step {step} was sealed in attempt {ref.attempt};"
            f" attempt {session.attempt.number} began at step {stored.lineage[-1].start}."
        )


def changes_at(store: Store, stored: Stored, step: int) -> tuple[list[Recorded], bool]:
    """Return the changes that hold at a step, newest first, and whether these are all."""
    log = of_this_description(store.events_until(stored, step, kinds=KINDS))
    changes = list(enough(stored.session.spec.at(step), log, MOST))
    if next(log, None) is None:
        return changes, True
    return [*changes, *_older(store, stored, step, changes)], False


def _older(store: Store, stored: Stored, step: int, changes: list[Recorded]) -> Iterator[Recorded]:
    """Read further back, but only changes that an operator ordered or that replaced a law."""
    seen = {_place(each) for each in changes}
    laws = of_this_description(store.events_until(stored, step, kinds=KINDS, of_laws=True))
    return islice((each for each in laws if _place(each) not in seen), MOST_OF_LAWS)


def _place(recorded: Recorded) -> tuple[object, ...]:
    return recorded.own, recorded.attempt, recorded.seq, recorded.created_at
