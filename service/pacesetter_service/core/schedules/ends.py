"""Where laws end, if they say so themselves."""

from pacesetter_service.core.lengths import steps_of
from pacesetter_service.core.schedules import Named, Schedule
from pacesetter_service.core.schedules.clocks import (
    Advance,
    Delay,
    OfTime,
    Sequence,
    Shift,
    Span,
    Within,
)
from pacesetter_service.core.schedules.combinators import Channels, OfValues
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.warmup import Warmup


def end_of(law: Schedule) -> float | None:
    """Return the step of a law's own clock from which on nothing new happens; None if unknown.

    A law with `total_steps` ends there, and a ramp after its `steps`. A combinator of one law ends
    where that law does, on the combinator's clock.
    """
    match law:
        case Ramp(out_of_range="hold") | Within(out_of_range="hold" | "error"):
            return steps_of(law.steps)
        case Sequence() | OfValues() | OfTime() | Warmup():
            return _on_its_clock(law, end_of(_heard_last(law)))
    total = getattr(law, "total_steps", None)
    if total is not None:
        return steps_of(total)
    return end_of(law.expanded) if isinstance(law, Named) else None


def length_of(law: Schedule) -> float | None:
    """Return how long a law says that its plan is, on its own clock; None if it does not say.

    A ramp has an end too, but what follows it may be most of the training, as after a warmup. So
    only `total_steps` counts, and Hugging Face's name for it. A law whose `out_of_range` says how
    it goes on past its range has no such end.
    """
    match law:
        case Channels():
            return length_of(law.laws["lr"])
        case Sequence() | OfValues() | OfTime() | Warmup():
            return _on_its_clock(law, length_of(_heard_last(law)))
    for field in ("total_steps", "num_training_steps"):
        said = getattr(law, field, None)
        if said is not None and getattr(law, "out_of_range", "hold") == "hold":
            return steps_of(said)
    return length_of(law.expanded) if isinstance(law, Named) else None


def is_constant(law: Schedule) -> bool:
    """Return whether a law is one value for ever, so that its clock does not matter."""
    return isinstance(law.expanded if isinstance(law, Named) else law, Hold)


def _heard_last(law: Sequence | OfValues | OfTime | Warmup) -> Schedule:
    return law.parts[-1].schedule if isinstance(law, Sequence) else law.schedule


def _on_its_clock(law: Schedule, end: float | None) -> float | None:  # noqa: PLR0911 - one return a kind
    """Return where a combinator ends, if its last law ends at `end` on that law's own clock."""
    if end is None:
        return None
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
        case Span(ratio=ratio):
            return end * ratio
        case Advance(by=by):
            return end / by
    return None


def _last_start(law: Sequence) -> float:
    """Return where the last part starts: each earlier part gives its length, or where it ends."""
    start = 0.0
    for part in law.parts[:-1]:
        start = (
            steps_of(part.until) if part.until is not None else start + steps_of(part.steps or 0)
        )
    return start
