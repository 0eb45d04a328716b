"""The rank tracker: the last known activity of every rank of every session, in memory.

Nothing of it is kept on disk: after a restart of the service it is empty until the ranks call
again. If there are too many ranks, the sessions that were silent for longest are forgotten. The one
conclusion that must not be lost, that a rank trained with other values, is in the log. Where
several processes share a database, `shared_ranks.py` brings together what each of them has heard.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from pacesetter_service.core.applied import KEPT, Comparison
from pacesetter_service.core.session import Session

MAX_RANKS = 65_536
"""How many ranks of a session are followed: those with numbers below this."""

MAX_FOLLOWED = 2 * MAX_RANKS
"""How many ranks of all sessions are followed."""

NEVER = -1
"""Stands for the step of something that a rank has not done yet."""


@dataclass(slots=True)
class RankState:
    """What one rank has told in its calls.

    Attributes:
        attempt: The attempt that it called for; after a take-back, the first of the chain.
        at: When it called last, by the monotonic clock in seconds.
        revision: The session's revision in the answer that it got.
        step: The furthest step that it has asked for, reported or applied since it last went back.
        stood: The step that it said it was training; `NEVER` if it has not said.
        since: When it said so, by the same clock.
        pace: The seconds that a step takes it, if it has said.
        asked: The first step of the last window that it asked for; `NEVER` if it did not.
        asked_at: When it asked for that window, by the same clock.
        reported: The last step that it reported on; `NEVER` if it did not.
        reported_at: When it reported, by the same clock.
        applied: The values that its optimizer last used, by its own account.
        applied_at: When it said so, by the same clock.
        deviating: The series that it trained with other values, as the session says, and that have
            not agreed since.
    """

    attempt: int
    at: float = 0.0
    revision: int = 0
    step: int = NEVER
    stood: int = NEVER
    since: float = 0.0
    pace: float | None = None
    asked: int = NEVER
    asked_at: float = 0.0
    reported: int = NEVER
    reported_at: float = 0.0
    applied: Comparison | None = None
    applied_at: float = 0.0
    deviating: tuple[str, ...] = ()

    def copy(self) -> "RankState":
        """Return a copy, made by hand: `copy.copy` takes six times as long."""
        return RankState(
            self.attempt,
            self.at,
            self.revision,
            self.step,
            self.stood,
            self.since,
            self.pace,
            self.asked,
            self.asked_at,
            self.reported,
            self.reported_at,
            self.applied,
            self.applied_at,
            self.deviating,
        )

    def later(self, seconds: float) -> "RankState":
        """Return the same state by a clock that is some seconds ahead."""
        moved = self.copy()
        moved.at += seconds
        moved.since += seconds
        moved.asked_at += seconds
        moved.reported_at += seconds
        moved.applied_at += seconds
        return moved

    @property
    def trained(self) -> int:
        """The newest step that it has trained, by its own account; `NEVER` for none.

        A rank that reports on a step has trained it; one that trains a step has trained the step
        before. One that only asks for windows counts as training the first step of its newest one.
        """
        stood = self.asked if self.stood == NEVER else self.stood
        applied = NEVER if self.applied is None else self.applied.step
        return max(self.reported, applied, stood - 1, NEVER)

    @property
    def deviates(self) -> bool:
        """Whether it trains with values other than the sealed ones, as far as it has said."""
        return bool(self.deviating) or (
            self.applied is not None and self.applied.precision == "differs"
        )


@dataclass(slots=True)
class SessionRanks:
    """The ranks of one session; what they said before `since` is unknown."""

    since: str
    ranks: dict[int, RankState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankSnapshot:
    """The ranks of one session as they were at one moment.

    Attributes:
        since: From when on they are known; what they said before is unknown.
        now: The moment, by the monotonic clock in seconds.
        ranks: What each rank has told.
    """

    since: str
    now: float
    ranks: Mapping[int, RankState]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a trainer is: the step that it trains, and the seconds that a step takes it."""

    step: int
    pace: float | None

    @classmethod
    def of(cls, heard: RankState, now: float) -> "Position":
        """Estimate where a rank is by now: it has gone on at its pace since it was heard.

        It cannot have gone beyond the last window that it asked for without asking for the next.
        """
        most = max(heard.asked - heard.stood, 0)
        gone = (now - heard.since) / heard.pace if heard.pace else 0.0
        # Limited before it is rounded: at a tiny pace it is infinite, which no integer is.
        return cls(heard.stood + int(max(min(most, gone), 0)), heard.pace)

    def until(self, step: int) -> tuple[int, float | None]:
        """Return how many steps lie before a step, and about how many seconds."""
        steps = max(step - self.step, 0)
        return steps, None if self.pace is None else steps * self.pace


class RankTracker:
    """All ranks of all sessions; for the event loop's thread, unless a method says otherwise."""

    def __init__(
        self,
        *,
        max_sessions: int = 10_000,
        max_followed: int = MAX_FOLLOWED,
        recent: float = 600.0,
        shares: bool = False,
    ) -> None:
        """Set up.

        Args:
            max_sessions: The most sessions that are followed.
            max_followed: The most ranks of all sessions together; at least `MAX_RANKS`.
            recent: Seconds of silence after which a rank is no longer counted.
            shares: Whether other processes are told of what is heard here.
        """
        self.recent = recent
        self._untold: set[tuple[str, int]] | None = set() if shares else None
        self._max_sessions = max_sessions
        self._max_followed = max_followed
        self._followed = 0
        self._crews: OrderedDict[str, SessionRanks] = OrderedDict()
        self._complete_since = wall_clock()

    def record_call(
        self,
        name: str,
        rank: int,
        attempt: int,
        revision: int,
        asked: int = NEVER,
        reported: int = NEVER,
        applied: Comparison | None = None,
        deviating: tuple[str, ...] = (),
        stood: int = NEVER,
        pace: float | None = None,
    ) -> None:
        """Record a call.

        Args:
            name: The name of the session.
            rank: The rank that called.
            attempt: The attempt that it called for; after a take-back, the first of the chain.
            revision: The session's revision in the answer.
            asked: The first step that it asked for; `NEVER` if it asked for none.
            reported: The last step that it reported on; `NEVER` if it reported on none.
            applied: The values that its optimizer used, if the call said so.
            deviating: The series whose deviation is recorded in the session.
            stood: The step that the trainer said it was training; `NEVER` if it did not say.
            pace: The seconds that a step takes, if it said so.
        """
        if rank >= MAX_RANKS:
            return
        crew = self._crews.get(name)
        if crew is None:
            crew = self._enlisted(name)
        self._crews.move_to_end(name)
        heard = crew.ranks.get(rank)
        if heard is None or heard.attempt != attempt:
            if heard is not None and attempt < heard.attempt:
                return  # a fenced process that still reads
            heard = self._joined(crew, rank, attempt)
        heard.at = monotonic()
        heard.revision = revision
        heard.deviating = deviating
        if stood != NEVER:
            heard.stood, heard.since, heard.pace = stood, heard.at, pace
        if asked != NEVER:
            if asked < heard.asked:  # it went back, to start again there
                heard.step = NEVER
            heard.asked, heard.asked_at = asked, heard.at
            heard.step = max(heard.step, asked)
        if reported != NEVER:
            heard.reported, heard.reported_at = reported, heard.at
            heard.step = max(heard.step, reported)
        if applied is not None:
            heard.applied, heard.applied_at = _shortened(applied), heard.at
            heard.step = max(heard.step, applied.step)
        if self._untold is not None:
            self._untold.add((name, rank))

    def take_untold(self) -> dict[tuple[str, int], RankState]:
        """Take the ranks that have called since the last time; always from the same thread."""
        found = dict[tuple[str, int], RankState]()
        untold = self._untold or set()
        for _ in range(len(untold)):
            name, rank = place = untold.pop()
            crew = self._crews.get(name)
            if crew is not None and (heard := crew.ranks.get(rank)) is not None:
                found[place] = heard.copy()
        return found

    def put_back(self, places: Iterable[tuple[str, int]]) -> None:
        """Put back ranks that others could not be told of; from the same thread."""
        if self._untold is not None:
            self._untold.update(places)

    def snapshot(self, name: str) -> RankSnapshot:
        """Return what is known of a session's ranks; callable from any thread."""
        crew = self._crews.get(name)
        if crew is None:
            return RankSnapshot(self._complete_since, monotonic(), {})
        # The list is made atomically: no call comes in between.
        ranks = {rank: heard.copy() for rank, heard in list(crew.ranks.items())}
        return RankSnapshot(crew.since, monotonic(), ranks)

    def position(self, session: Session) -> "Position | None":
        """Return where the trainers of a session are by now; None if none has said where it was.

        The foremost trainer counts: a change must lie ahead of it.
        """
        crew = self._crews.get(session.spec.name)
        return foremost(session, list(crew.ranks.values()) if crew else (), monotonic())

    def heard(self, name: str) -> list[RankState]:
        """Return the ranks of a session, to be read immediately; callable from any thread."""
        crew = self._crews.get(name)
        return [] if crew is None else list(crew.ranks.values())

    def heard_within(self, seconds: float) -> list[str]:
        """Return the sessions with a rank that called in the last seconds; from any thread."""
        since = monotonic() - seconds
        return [
            name
            for name, crew in list(self._crews.items())
            if any(heard.at >= since for heard in list(crew.ranks.values()))
        ]

    def in_trouble(self, seconds: float) -> list[str]:
        """Return the sessions with a rank that deviates or is silent for too long; from any thread.

        Only ranks of the newest attempt that were heard of lately count.
        """
        now, found = monotonic(), []
        for name, crew in list(self._crews.items()):
            ranks = list(crew.ranks.values())
            newest = max((each.attempt for each in ranks), default=0)
            ages = [(now - each.at, each.deviates) for each in ranks if each.attempt == newest]
            if any(age <= self.recent and (deviates or age > seconds) for age, deviates in ages):
                found.append(name)
        return found

    def forget(self, name: str) -> None:
        """Forget a session that is gone."""
        crew = self._crews.pop(name, None)
        self._followed -= 0 if crew is None else len(crew.ranks)

    def last_word(self, name: str) -> tuple[float, float | None] | None:
        """Return for how many seconds no rank of a session has called, and the pace of a step.

        The pace is the slowest that any rank has said, if one has. None if no rank was heard of.
        Callable from any thread.
        """
        crew = self._crews.get(name)
        heard = list(crew.ranks.values()) if crew else []
        if not heard:
            return None
        paces = [each.pace for each in heard if each.pace is not None]
        return monotonic() - max(each.at for each in heard), max(paces, default=None)

    def counts(self) -> tuple[int, int]:
        """Count the ranks of all sessions, and those of them that deviate; from any thread.

        Only ranks heard of lately count, and as deviating only those of a session's newest attempt.
        """
        ranks = deviating = 0
        lately = monotonic() - self.recent
        for crew in list(self._crews.values()):
            heard = [each for each in list(crew.ranks.values()) if each.at >= lately]
            newest = max((each.attempt for each in heard), default=0)
            ranks += len(heard)
            deviating += sum(each.deviates for each in heard if each.attempt == newest)
        return ranks, deviating

    def silent(self, seconds: float) -> int:
        """Count the ranks that were silent for longer, while others called; from any thread.

        Only ranks of a session's newest attempt count: the others were fenced, and may be silent.
        If no rank of a session calls, the training is over or stands still.
        """
        now, found = monotonic(), 0
        for crew in list(self._crews.values()):
            ranks = list(crew.ranks.values())
            newest = max((each.attempt for each in ranks), default=0)
            ages = [now - each.at for each in ranks if each.attempt == newest]
            if ages and min(ages) <= seconds:
                found += sum(seconds < age <= self.recent for age in ages)
        return found

    def heard_lately(self, seconds: float) -> list[tuple[str, int]]:
        """Return the sessions with a rank that called in the last seconds; from any thread.

        Each comes with the foremost step that a rank of its newest attempt has reached by now.
        """
        now, found = monotonic(), []
        for name, crew in list(self._crews.items()):
            heard = list(crew.ranks.values())
            newest = max((each.attempt for each in heard), default=0)
            steps = [
                Position.of(each, now).step
                for each in heard
                if each.attempt == newest and each.stood != NEVER and now - each.at <= seconds
            ]
            if steps:
                found.append((name, max(steps)))
        return found

    def _enlisted(self, name: str) -> SessionRanks:
        crew = self._crews[name] = SessionRanks(self._complete_since)
        if len(self._crews) > self._max_sessions:
            self._forget_the_longest_silent()
        return crew

    def _joined(self, crew: SessionRanks, rank: int, attempt: int) -> RankState:
        self._followed += rank not in crew.ranks
        heard = crew.ranks[rank] = RankState(attempt)
        if self._followed > self._max_followed:
            self._forget_the_longest_silent()
        return heard

    def _forget_the_longest_silent(self) -> None:
        _, crew = self._crews.popitem(last=False)
        self._followed -= len(crew.ranks)
        self._complete_since = wall_clock()


def foremost(session: Session, ranks: Iterable[RankState], now: float) -> Position | None:
    """Return where the foremost of some ranks is by now; None if none has said where it was."""
    found = (
        Position.of(heard, now)
        for heard in ranks
        if heard.attempt == session.attempt.began_as and heard.stood != NEVER
    )
    return max(found, key=lambda each: each.step, default=None)


def merged(one: RankState, other: RankState) -> RankState:
    """Merge what two processes have heard of one rank; their clocks agree.

    Merging is commutative and idempotent.
    """
    if one.attempt != other.attempt:
        return max(one, other, key=lambda each: each.attempt).copy()
    latest = max(one, other, key=lambda each: each.at)
    placed = max(one, other, key=lambda each: each.since)
    before, asked = sorted((one, other), key=lambda each: each.asked_at)
    reported = max(one, other, key=lambda each: each.reported_at)
    applied = max(one, other, key=lambda each: each.applied_at)
    went_back = asked.asked < before.asked  # to start again there
    return RankState(
        one.attempt,
        latest.at,
        latest.revision,
        asked.step if went_back else max(one.step, other.step),
        placed.stood,
        placed.since,
        placed.pace,
        asked.asked,
        asked.asked_at,
        reported.reported,
        reported.reported_at,
        applied.applied,
        applied.applied_at,
        latest.deviating,
    )


def wall_clock(seconds_ago: float = 0.0) -> str:
    """Return the time of day, now or some seconds ago; ISO 8601, UTC."""
    moment = datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds_ago, UTC)
    return moment.isoformat(timespec="milliseconds")


def _shortened(applied: Comparison) -> Comparison:
    return Comparison(applied.step, applied.precision, applied.differing, applied.values[:KEPT])


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary of a session's ranks; lists of ranks are in ascending order.

    Attributes:
        seen: How many ranks of the running attempt have called.
        current: How many of these know the current revision.
        newest_step: The newest step that any of them has trained, if one has.
        furthest: The furthest step that any of them has asked for, reported or applied, if one has.
        slowest: The rank that is furthest behind.
        missing: Ranks that the session expects and that have not called in the running attempt.
        unreported: Expected ranks that have not reported: the missing ones, and silent callers.
        stale: Ranks that have not called for too long, or are too far behind.
        deviating: Ranks that train with values other than the sealed ones.
        earlier: Ranks that last called in an earlier attempt.
    """

    seen: int
    current: int
    newest_step: int | None
    furthest: int | None
    slowest: int | None
    missing: tuple[int, ...]
    unreported: tuple[int, ...]
    stale: tuple[int, ...]
    deviating: tuple[int, ...]
    earlier: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Patience:
    """When a rank is stale: after `seconds` of silence or, if given, over `steps` steps behind."""

    seconds: float
    steps: int | None = None

    def is_over(self, heard: RankState, now: float, newest_step: int) -> bool:
        """Return whether a rank is stale."""
        too_slow = self.steps is not None and newest_step - heard.step > self.steps
        return too_slow or now - heard.at > self.seconds


def summary(session: Session, snapshot: RankSnapshot, patience: Patience) -> Summary:
    """Sum up the ranks of a session."""
    by_number = sorted(snapshot.ranks.items())
    running = session.attempt.began_as
    here = {rank: heard for rank, heard in by_number if heard.attempt == running}
    trained = max((heard.trained for heard in here.values()), default=NEVER)
    newest = max((heard.step for heard in here.values()), default=NEVER)
    placed = [(heard.step, rank) for rank, heard in here.items() if heard.step != NEVER]
    return Summary(
        seen=len(here),
        current=sum(heard.revision == session.revision for heard in here.values()),
        newest_step=None if trained == NEVER else trained,
        furthest=None if newest == NEVER else newest,
        slowest=min(placed)[1] if placed else None,
        missing=tuple(rank for rank in range(session.spec.ranks) if rank not in here),
        unreported=tuple(
            rank
            for rank in range(session.spec.ranks)
            if rank not in here or here[rank].reported == NEVER
        ),
        stale=tuple(
            rank for rank, heard in here.items() if patience.is_over(heard, snapshot.now, newest)
        ),
        deviating=tuple(rank for rank, heard in here.items() if heard.deviates),
        earlier=tuple(
            rank for rank, heard in by_number if heard.attempt != session.attempt.began_as
        ),
    )
