"""What optimizers really used, as ranks say: compared with what was sealed, recorded if it differs.

A deviation is recorded once for each attempt, rank and series, until the rank has applied what was
sealed again. What is recorded is known to memory alone: after a restart of the service a deviation
that goes on is recorded once more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from pacesetter_service.core.applied import Comparison, compare
from pacesetter_service.core.commands import RecordDeviation
from pacesetter_service.core.decide import refuse_untrained
from pacesetter_service.core.events import RateDeviated
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.model import did_you_mean, refusal
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.orders import refuse_unless_writable
from pacesetter_service.core.sentences import listed
from pacesetter_service.core.session import Session
from pacesetter_service.fleet import MAX_RANKS, Fleet

log = structlog.get_logger("pacesetter.fleet")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out when the values of a call were compared.

    Attributes:
        rank: Whose values they are,
        attempt: and the attempt in which it applied them.
        comparison: How each of them agrees with what was sealed.
        new: The deviations that are to be recorded now.
        notices: What the rank is told of these.
    """

    rank: int
    attempt: int
    comparison: Comparison
    new: tuple[RateDeviated, ...]
    notices: tuple[Notice, ...]

    def command(self) -> RecordDeviation:
        """Give the command that has the new deviations recorded."""
        values = {each.series: (each.applied, each.sealed) for each in self.new}
        return RecordDeviation(self.rank, self.comparison.step, values, self.attempt)


class Comparer:
    """Compares what was applied, and sees to it that nothing is recorded twice."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._underway: set[tuple[str, int, int, str]] = set()

    def compared(
        self,
        session: Session,
        rank: int,
        step: int,
        applied: Mapping[str, float],
        sealed: Mapping[str, float],
    ) -> Finding:
        """Compare what a rank applied at a step with what was sealed for it."""
        name, attempt = session.spec.name, session.attempt
        comparison = compare(step, applied, sealed)
        new = tuple(
            RateDeviated(rank, step, series, applied[series], sealed[series])
            for series in self._fleet.unrecorded(name, rank, attempt, comparison)
            if (name, attempt, rank, series) not in self._underway
        )
        told = evolve_all(session, new).notices[-len(new) :] if new else ()
        return Finding(rank, attempt, comparison, new, told)

    @contextmanager
    def recording(self, name: str, finding: Finding) -> Iterator[None]:
        """Frame the commit of what was found: it is not found again meanwhile, and then logged."""
        keys = {(name, finding.attempt, each.rank, each.series) for each in finding.new}
        self._underway |= keys
        try:
            yield
        finally:
            self._underway -= keys
        for each in finding.new:
            log.warning(
                "rate_deviated",
                session=name,
                attempt=finding.attempt,
                rank=each.rank,
                step=each.step,
                series=each.series,
                applied=each.applied,
                sealed=each.sealed,
            )


def refuse_incomparable(
    session: Session, rank: int, attempt: int | None, step: int, series: Mapping[str, object]
) -> None:
    """Refuse what can not be compared: of another attempt, not handed out, or unknown.

    Raises:
        SessionArchivedError: The session takes nothing more.
        StaleAttemptError: The values are those of another attempt.
        StepOutOfRangeError: The step was not handed out.
        ValidationError: There is no such series, or the rank is not one that is followed.
    """
    refuse_unless_writable(session, attempt)
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
