"""Where laws end, as far as they say so themselves."""

from pacesetter_service.core.lengths import steps_of
from pacesetter_service.core.schedules import Named, Schedule
from pacesetter_service.core.schedules.clocks import (
    Advance,
    Delay,
    OfTime,
    Sequence,
    Shift,
    Stretch,
    Within,
)
from pacesetter_service.core.schedules.combinators import OfValues
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.warmup import Warmup


def end_of(law: Schedule) -> float | None:
    """Give the step of a law's own clock from which on it does nothing new; None is not known.

    A law that says `total_steps` ends there, a ramp after its `steps`; combinators of one law end
    where that one does, as their clock sees it.
    """
    match law:
        case Ramp(outside="hold") | Within(outside="hold" | "error"):
            return steps_of(law.steps)
        case Sequence() | OfValues() | OfTime() | Warmup():
            return _end_of_combinator(law)
    total = getattr(law, "total_steps", None)
    if total is not None:
        return steps_of(total)
    return end_of(law.expanded) if isinstance(law, Named) else None


def is_constant(law: Schedule) -> bool:
    """Tell whether a law is one value for ever, so that its clock does not matter."""
    return isinstance(law.expanded if isinstance(law, Named) else law, Hold)


def _end_of_combinator(law: Sequence | OfValues | OfTime | Warmup) -> float | None:
    """Give the end of the law that is heard last, on the combinator's clock."""
    last = law.parts[-1].schedule if isinstance(law, Sequence) else law.schedule
    end = end_of(last)
    return None if end is None else _on_its_clock(law, end)


def _on_its_clock(law: Schedule, end: float) -> float | None:  # noqa: PLR0911 - one return a kind
    match law:
        case Sequence(clock="local"):
            return _last_start(law) + end
        case Warmup(mode="prefix"):
            return end + steps_of(law.steps)
        case OfValues() | Warmup():
            return end
        case Shift(by=by):
            return end - by
        case Delay(by=by):
            return end + steps_of(by)
        case Stretch(ratio=ratio):
            return end * ratio
        case Advance(by=by):
            return end / by
    return None


def _last_start(law: Sequence) -> float:
    """Give where the last part starts: each before it says its length, or where it ends."""
    start = 0.0
    for part in law.parts[:-1]:
        start = (
            steps_of(part.until) if part.until is not None else start + steps_of(part.steps or 0)
        )
    return start
