"""Compares the values that optimizers really used, as trainers report them, with the sealed ones.

A deviation is recorded once for each attempt, rank and series, until the rank has applied sealed
values again. The record is part of the session itself, so neither a restart nor a second process
records it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from pacesetter_service.core.applied import Comparison, compare
from pacesetter_service.core.commands import RecordDeviation
from pacesetter_service.core.decide import deviations, refuse_untrained
from pacesetter_service.core.events import RateDeviated
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.mistakes import refusal
from pacesetter_service.core.model import did_you_mean
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.session import Session
from pacesetter_service.core.status import refuse_unless_taken
from pacesetter_service.core.wording import listed
from pacesetter_service.runtime.ranks import MAX_RANKS

log = structlog.get_logger("pacesetter.ranks")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of comparing the applied values of a call with the sealed ones.

    Attributes:
        comparison: How each of them agrees with what was sealed.
        command: Records what is new; None if nothing is.
        new: The deviations that must be recorded now.
        notices: The notices that the rank gets about them.
    """

    comparison: Comparison
    command: RecordDeviation | None = None
    new: tuple[RateDeviated, ...] = ()
    notices: tuple[Notice, ...] = ()


def compared(
    session: Session,
    rank: int,
    step: int,
    applied: Mapping[str, float],
    sealed: Mapping[str, float],
) -> Finding:
    """Compare what a rank applied at a step with what was sealed for it."""
    comparison = compare(step, applied, sealed)
    if comparison.precision != "differs" and rank not in session.control.watch.deviating:
        return Finding(comparison)
    values = {each.series: (each.applied, each.sealed) for each in comparison.values}
    command = RecordDeviation(rank, step, values, session.attempt.number)
    events = deviations(session, command)
    if not events:
        return Finding(comparison)
    new = tuple(event for event in events if isinstance(event, RateDeviated))
    before = session.control.notices
    # Compared, not counted from the end: many deviations make only a few notices.
    told = tuple(each for each in evolve_all(session, new).control.notices if each not in before)
    return Finding(comparison, command, new, told)


def log_deviations(session: str, attempt: int, new: tuple[RateDeviated, ...]) -> None:
    """Log the deviations that were recorded."""
    for each in new:
        log.warning(
            "rate_deviated",
            session=session,
            attempt=attempt,
            rank=each.rank,
            step=each.step,
            series=each.series,
            applied=each.applied,
            sealed=each.sealed,
        )


def refuse_incomparable(
    session: Session, rank: int, attempt: int | None, step: int, series: Mapping[str, object]
) -> None:
    """Refuse values that cannot be compared: of another attempt, not handed out, or unknown.

    Raises:
        SessionArchivedError: The session accepts nothing more.
        StaleAttemptError: The values are those of another attempt.
        StepOutOfRangeError: The step was not handed out.
        ValidationError: There is no such series, or the rank is too high to be tracked.
    """
    refuse_unless_taken(session, RecordDeviation(rank, step, {}, attempt))
    refuse_untrained(session, step)
    if rank >= MAX_RANKS:
        raise refusal(
            ("rank",), "rank_too_large", f"Ranks that apply values are 0 to {MAX_RANKS - 1}"
        )
    for name in series:
        if name not in session.timelines:
            known = list(session.timelines)
            raise refusal(
                ("applied", "values", name),
                "unknown_series",
                f"There is no such series.{did_you_mean(name, known)} Known here: {listed(known)}",
            )
