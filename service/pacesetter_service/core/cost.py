"""The budget for what one caller may have evaluated, and the refusal of whatever exceeds it.

A cost is counted, see `schedules/cost.py`: nodes times the cost of their kinds, times steps, over
all series. So it is known, and can be stated, before anything is evaluated.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pacesetter_service.core.actions import Action
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.errors import TooCostlyError, concerning
from pacesetter_service.core.events import (
    Acted,
    BatchResized,
    Decided,
    Event,
    Measured,
    Missed,
)
from pacesetter_service.core.schedules import Schedule, Values
from pacesetter_service.core.schedules.cost import Cost, Prices, parts_of
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.timeline import SEALING, SEGMENT, Timeline, Timelines

SMALL_WINDOW = 16
"""How many steps of any session must be within the budget of one sealing."""

READING = 2e9
"""The most that one answer may cost: about two seconds of one core."""

SLICE = 5e7
"""How much is evaluated in one go where the caller may hang up meanwhile."""

LIGHT = 1e7
"""Work up to this cost need not wait behind costly work."""

REPLAY = 1e5
"""The most that replaying from one snapshot to the next may cost: a tenth of a second or two.

The unit is one controller that sees one series, which takes about a microsecond.
"""

REPLAYED = 1000
"""The most measurements and orders between two snapshots, however little they cost."""

PER_CHANGE = 10
"""The cost of a decision or an order that changes one series, in the same unit."""

Check = Callable[[], None]
"""Called between two slices; raises if the caller that waits for the answer has gone."""


def refuse_costly_session(session: Session) -> None:
    """Refuse a state of which even a small window takes too long, however it came about.

    Raises:
        TooCostlyError: It does, now, or with what a controller or an order may make of it.
    """
    refuse_costly(session.spec)
    refuse_costly_laws(session.timelines, session.horizon)
    refuse_costly_turns((order.action for order in session.orders.waiting), session.spec)


def refuse_costly(spec: SessionSpec) -> None:
    """Refuse a spec of which even a small window takes too long.

    Raises:
        TooCostlyError: It does, as it begins or with what a controller may go over to.
    """
    of = Prices()
    costs = {each.name: of(each.schedule) + SEGMENT for each in spec.series()}
    with concerning(*spec.place_of_law(max(costs, key=lambda name: _of_a_window(costs[name])))):
        _refuse_beyond_budget(costs)
    with concerning("controllers"):
        refuse_costly_turns((turn for rule in spec.rules for turn in rule.transitions), spec)
    if spec.earlier is not None:
        refuse_costly(spec.earlier.spec)


def refuse_costly_turns(turns: Iterable[Action | Transition], spec: SessionSpec) -> None:
    """Refuse turns that may go over to a law that is too costly for the session's series.

    Raises:
        TooCostlyError: One of them may.
    """
    of, series = Prices(), Counter(each.channel for each in spec.series())
    for law in (part for turn in turns for part in parts_of(turn) if isinstance(part, Schedule)):
        laws = law.channels()
        _refuse_beyond_budget(
            {
                f"{channel} of {times} groups": (of(laws[channel]) + SEGMENT) * times
                for channel, times in series.items()
                if channel in laws
            }
        )


def refuse_costly_laws(lines: Timelines, horizon: int) -> None:
    """Refuse the laws in force from a step on, if a small window of them takes too long.

    Raises:
        TooCostlyError: It does.
    """
    of = Prices()

    def dearest(line: Timeline) -> Cost:
        laws = [of(segment.schedule) for segment in line.since(horizon).segments]
        return max(laws, key=_of_a_window) + SEGMENT

    _refuse_beyond_budget({name: dearest(line) for name, line in lines.items()})


def _of_a_window(cost: Cost) -> float:
    return cost.of(SMALL_WINDOW)


def _refuse_beyond_budget(laws: dict[str, Cost]) -> None:
    total = _of_a_window(sum(laws.values(), Cost()))
    if total > SEALING:
        dearest = max(laws, key=lambda name: _of_a_window(laws[name]))
        share = _of_a_window(laws[dearest])
        raise TooCostlyError(
            f"These schedules cost {total:.3g} for a window of {SMALL_WINDOW} steps, and the budget"
            f" is {SEALING:.3g}; a plain `hold` costs 1 a step and 1,000 a window. {dearest} is"
            f" the dearest with {share:.3g}. Reduce the number of groups with schedules of their"
            " own, of schedules within each other (`splice`, `warmup` and `sequence` evaluate"
            " theirs several times), or the length of their expressions."
        )


def replay_cost(spec: SessionSpec, events: Iterable[Event]) -> float:
    """Return about what replaying these events costs; 0 if none of them is replayed."""
    series, least = len(spec.series()), REPLAY / REPLAYED
    total = 0.0
    for event in events:
        match event:
            case Measured() | Missed():
                total += max(len(spec.rules) * series, least)
            case Decided() | Acted() | BatchResized():
                total += max(PER_CHANGE * series, least)
    return total


def refuse_costly_reading(cost: Cost, count: int) -> None:
    """Refuse an answer that would take too long.

    Raises:
        TooCostlyError: It would.
    """
    _, total = cost.in_slices(count, SLICE)
    if total > READING:
        fewer = readable(cost)
        advice = f"Ask for at most {fewer} steps" if fewer else "Use simpler schedules"
        raise TooCostlyError(
            f"{count} steps of these schedules cost {total:.3g}, and the budget of one answer is"
            f" {READING:.3g}; a plain `hold` costs 1 a step. {advice}, or reduce the number of"
            " groups and of schedules within each other."
        )


def readable(cost: Cost) -> int:
    """Return how many steps one answer may have; 0 if not even one is within the budget."""
    size, _ = cost.in_slices(1, SLICE)
    whole = int(READING / cost.of(size)) * size
    return whole or (1 if cost.of(1) <= READING else 0)


def evaluated(lines: Timelines, start: int, count: int, check: Check) -> dict[str, Values]:
    """Evaluate steps of all series, slice by slice; the bits equal those of a single block."""
    size, _ = lines.cost.in_slices(count, SLICE)
    slices = [
        list(_each(lines.values(), at, min(size, start + count - at), check))
        for at in range(start, start + count, size)
    ]
    if len(slices) == 1:
        return dict(zip(lines, slices[0], strict=True))
    return {name: np.concatenate([each[row] for each in slices]) for row, name in enumerate(lines)}


def _each(lines: Iterable[Timeline], start: int, count: int, check: Check) -> Iterator[Values]:
    for line in lines:
        check()
        yield line.values(start, count)
