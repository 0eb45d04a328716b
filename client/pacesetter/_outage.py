"""What a training does when its sealed values are used up and the server is away.

It waits, and stops when that takes too long; or it goes on for a while by itself, and the server is
told afterwards what was used. The second is for a training in which one process decides for all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pacesetter._errors import (
    APIError,
    AwaitingMeasurementError,
    InvalidAnswerError,
    PacesetterError,
    ServerError,
    ServerUnavailableError,
)
from pacesetter._feed import Feed
from pacesetter._window import Window
from pacesetter._wire import Wire

KINDS = ("wait", "hold", "forecast")
READ_AT_MOST = 10_000
"""Steps whose sealed values are read in one exchange."""

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class OutagePolicy:
    """What to do when values are missing and the server is away.

    Attributes:
        kind: `wait` for it for `max_wait` seconds, then raise; `hold` the last value; or follow the
            `forecast` that the server gave while it was there.
        patience: seconds that a step waits before the training goes on by itself. Where it may not,
            because it has for too long or knows no values, it waits for `max_wait` and then raises.
        max_steps: most steps that are trained by themselves in one outage.
        max_seconds: most seconds, likewise, as seen when a step asks for values.

    Raises:
        ValueError: one of them makes no sense.
    """

    kind: str = "wait"
    patience: float = 5.0
    max_steps: int = 1000
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"on_outage={self.kind!r}: choose from {', '.join(KINDS)}")
        # `not >=` refuses NaN too.
        if not self.patience >= 0 or not self.max_seconds >= 0 or self.max_steps < 1:
            raise ValueError(f"{self}: give seconds of 0 or more, and at least one step")

    @classmethod
    def of(cls, given: str | OutagePolicy) -> OutagePolicy:
        """A policy, or the one of that kind with the usual bounds."""
        return given if isinstance(given, OutagePolicy) else cls(given)

    @property
    def goes_on(self) -> bool:
        """Whether the training may go on by itself."""
        return self.kind != "wait"


@dataclass(frozen=True)
class Outage:
    """News of a time without the server.

    Attributes:
        session: whose training.
        state: `began`; `over`; or `exhausted` when the policy allows no further step.
        kind: of the policy.
        first: the first step trained without the server.
        step: the step that the training has come to.
        seconds: since the outage began for the training.
        reason: why it began, for people.
    """

    session: str
    state: str
    kind: str
    first: int
    step: int
    seconds: float
    reason: str


OnOutage: TypeAlias = Callable[[Outage], object]


class Curve:
    """Values of consecutive steps as they were forecast.

    Attributes:
        start: the first step.
        stop: the step after the last.
        sealed_until: the first step that was not sealed when it was read.
    """

    def __init__(
        self, start: int, columns: Mapping[str, Sequence[float]], sealed_until: int = 0
    ) -> None:
        self.start = start
        self.sealed_until = sealed_until
        self.stop = start + min(map(len, columns.values()))
        self._columns = columns

    def part(self, start: int, count: int) -> Window | None:
        """Up to `count` steps from `start` on; None if it is not known."""
        if not self.start <= start < self.stop:
            return None
        first, last = start - self.start, min(start + count, self.stop) - self.start
        columns = {name: list(column[first:last]) for name, column in self._columns.items()}
        return Window(start, columns, sealed=False)


@dataclass
class _Gap:
    """A time without the server: what was trained in it."""

    first: int
    began: float
    reason: str
    windows: list[Window]
    told_end: bool = False


class Bridge:
    """Supplies windows over outages: the feed's, or its own while there are none.

    Belongs to the trainer's thread.
    """

    def __init__(self, feed: Feed, policy: OutagePolicy, curve: Curve | None = None) -> None:
        self._feed = feed
        self._policy = policy
        self._curve = curve
        self._curve_revision = feed.info.revision
        self._curve_asked = False
        self._last: Window | None = None
        self._gap: _Gap | None = None
        self._listeners: list[OnOutage] = []
        feed.wire.met = curve is None

    def listen(self, listener: OnOutage) -> None:
        """Have a function called with each piece of news."""
        self._listeners.append(listener)

    def forget(self) -> None:
        """Be in a new attempt: what was known of the old one holds no more."""
        self._last = self._gap = self._curve = None
        self._feed.wire.trained_until = 0
        self._curve_asked = False

    def go_back(self, step: int) -> None:
        """Train from another step on, still without the server: what came after it is undone."""
        gap = self._gap
        self._feed.wire.trained_until = min(self._feed.wire.trained_until, step)
        if gap is None:
            return
        if gap.windows and gap.first < step <= gap.windows[-1].stop:
            gap.windows = [_until(step, each) for each in gap.windows if each.start < step]
        else:  # nothing of it was trained without the server
            gap.first, gap.windows = step, []

    def prime(self, step: int) -> None:
        """Get a forecast at once, before anything can go wrong; later if the server is away."""
        if self._policy.kind == "forecast" and self._curve is None:
            with contextlib.suppress(PacesetterError), self._feed.wire.lock:
                self._read_curve(step)

    def fetch(self, step: int, count: int) -> Window:
        """The window from `step`, the server's if it can be had in time.

        Raises:
            ServerUnavailableError: it can not, and the policy allows no further step.
        """
        if self._gap is None:
            try:
                window = self._ask(step, count) if self._knows(step) else self._wait(step, count)
            except ServerUnavailableError as error:
                if _awaits(error) or not self._knows(step):
                    raise
                self._gap = _Gap(step, time.monotonic(), str(error), [])
                self._tell("began", step)
                return self._stand_in(step, count)
            self._keep(window)
            return window
        return self._fetch_in_gap(self._gap, step, count)

    def _fetch_in_gap(self, gap: _Gap, step: int, count: int) -> Window:
        window = self._feed.take(step)
        exhausted = self._exhausted(gap, step)
        # The thread asks all the time. When it has nothing to do, it was refused: hear it here.
        stuck = exhausted or not self._knows(step)
        if window is None and (stuck or not self._feed.busy):
            try:
                window = self._wait(step, count) if stuck else self._ask(step, count)
            except ServerUnavailableError as error:
                if exhausted and not gap.told_end:
                    gap.told_end = True
                    self._tell("exhausted", step)
                if stuck or _awaits(error):
                    raise
        if window is None:
            return self._stand_in(step, count)
        self._tell("over", step)
        self._gap = None
        trained = [each for each in gap.windows if each.start < step]
        if trained:
            self._feed.send(functools.partial(_reconcile, self._feed.wire, trained, step))
        self._keep(window)
        return window

    def _ask(self, step: int, count: int) -> Window:
        """The window from the server, waiting for no longer than the policy has patience."""
        patience = min(self._policy.patience, self._feed.max_wait)
        try:
            return self._feed.fetch(step, count, patience)
        except ServerUnavailableError as error:
            if not _awaits(error):
                raise
        return self._feed.fetch(step, count, self._feed.max_wait - patience)

    def _wait(self, step: int, count: int) -> Window:
        """The window from the server, waited for as with the policy `wait`."""
        return self._feed.fetch(step, count)

    # -- values of our own -----------------------------------------------------------------------

    def _knows(self, step: int) -> bool:
        """Whether there is anything to go on with at a step that may not be sealed."""
        curve = self._curve
        in_curve = curve is not None and curve.start <= step < curve.stop
        if step < (self._feed.wire.horizon if self._gap is None else self._gap.first):
            # It is sealed, so nothing else may be used for it.
            return in_curve and curve is not None and step < curve.sealed_until
        return in_curve if self._policy.kind == "forecast" else bool(self._last or curve)

    def _exhausted(self, gap: _Gap, step: int) -> bool:
        policy = self._policy
        return (
            step - gap.first >= policy.max_steps
            or time.monotonic() - gap.began >= policy.max_seconds
        )

    def _stand_in(self, step: int, count: int) -> Window:
        """Values for about a tenth of a window, so that the server's are taken up soon."""
        gap = self._gap
        assert gap is not None  # noqa: S101 - the callers' branches, for the type checker
        count = max(1, min(count // 10, gap.first + self._policy.max_steps - step))
        window = self._made_up(step, count)
        gap.windows.append(window)
        self._feed.wire.trained_until = window.stop
        if not self._feed.busy:
            self._feed.order(window.stop, max(count * 10, 1))
        return window

    def _made_up(self, step: int, count: int) -> Window:
        if self._policy.kind == "forecast":
            part = self._curve.part(step, count) if self._curve is not None else None
            assert part is not None  # noqa: S101 - `_knows` was asked
            return part
        last = self._last or (self._curve and self._curve.part(self._nearest(step), 1))
        assert last  # noqa: S101 - `_knows` was asked
        held = {name: [column[-1]] * count for name, column in last.columns.items()}
        return Window(step, held, sealed=False)

    def _nearest(self, step: int) -> int:
        assert self._curve is not None  # noqa: S101 - the caller's branch
        return min(max(step, self._curve.start), self._curve.stop - 1)

    def _keep(self, window: Window) -> None:
        """Remember what to go on with, and see to it that the forecast reaches far enough."""
        self._last = window
        if self._policy.kind != "forecast" or self._curve_asked:
            return
        known = self._curve.stop if self._curve is not None else window.stop
        stale = self._curve_revision != self._feed.wire.revision
        if stale or known < window.stop + self._policy.max_steps:
            self._curve_asked = True
            self._feed.send(functools.partial(self._refresh, window.stop))

    def _refresh(self, start: int) -> None:
        try:
            self._read_curve(start)
        except (APIError, InvalidAnswerError) as error:
            if isinstance(error, ServerError):
                raise
            logger.warning("no forecast of session %s: %s", self._feed.info.name, error)
        self._curve_asked = False

    def _read_curve(self, start: int) -> None:
        wire = self._feed.wire
        revision = wire.revision
        columns = wire.values(start, min(2 * self._policy.max_steps, READ_AT_MOST), sealed=False)
        self._curve, self._curve_revision = Curve(start, columns), revision

    # -- news ------------------------------------------------------------------------------------

    def _tell(self, state: str, step: int) -> None:
        gap = self._gap
        assert gap is not None  # noqa: S101 - the callers' branches, for the type checker
        seconds = time.monotonic() - gap.began
        news = Outage(
            self._feed.info.name, state, self._policy.kind, gap.first, step, seconds, gap.reason
        )
        logger.warning("%s", _sentence(news, self._policy))
        for listener in self._listeners:
            listener(news)


def _until(step: int, window: Window) -> Window:
    """What a window holds before a step."""
    count = step - window.start
    columns = {name: column[:count] for name, column in window.columns.items()}
    return Window(window.start, columns, sealed=window.sealed)


def _awaits(error: ServerUnavailableError) -> bool:
    """Whether the server was there, and waited for what ranks are to measure."""
    return isinstance(error.__cause__, AwaitingMeasurementError)


def _sentence(news: Outage, policy: OutagePolicy) -> str:
    if news.state == "began":
        return (
            f"session {news.session} goes on without the server from step {news.step} "
            f"({news.kind}), for at most {policy.max_steps} steps and {policy.max_seconds:g} s: "
            f"{news.reason}"
        )
    if news.state == "over":
        return (
            f"session {news.session} follows the server again from step {news.step}: "
            f"{news.step - news.first} steps were trained without it ({news.kind})"
        )
    return (
        f"session {news.session} stops at step {news.step}: it was trained without the server "
        f"since step {news.first}, for {news.seconds:.1f} s ({news.kind}), and may not any longer"
    )


def _reconcile(wire: Wire, trained: Sequence[Window], stop: int) -> None:
    """Tell the server what was used below `stop` in its absence.

    The steps are sealed by now, as planned. Told are those at which what was used begins or ceases
    to differ from that, and the last one: that is how the server records deviations.
    """
    first, differing, number = trained[0].start, 0, 0
    try:
        for step, values, differs, changed in _compared(wire, trained, stop):
            number += 1
            differing += differs
            if (changed or step == stop - 1) and wire.takes_applied:
                wire.send_applied(step, values)
    except ServerError:
        raise
    except (APIError, InvalidAnswerError) as error:
        logger.warning("what was used from step %d on could not be told: %s", first, error)
        return
    logger.warning(
        "of the %d steps trained without the server, from step %d on, %d differ from what is "
        "sealed for them",
        number,
        first,
        differing,
    )


def _compared(
    wire: Wire, trained: Sequence[Window], stop: int
) -> list[tuple[int, dict[str, float], bool, bool]]:
    """For each step what was used, whether it differs from the sealed, and whether that changed."""
    steps = []
    before: frozenset[str] = frozenset()
    for window in trained:
        count = min(window.stop, stop) - window.start
        sealed = _sealed(wire, window.start, count)
        for index in range(count):
            used = {name: column[index] for name, column in window.columns.items()}
            differs = frozenset(name for name in used if used[name] != sealed[name][index])
            steps.append((window.start + index, used, bool(differs), differs != before))
            before = differs
    return steps


def _sealed(wire: Wire, start: int, count: int) -> dict[str, list[float]]:
    parts = [
        wire.values(first, min(READ_AT_MOST, start + count - first), sealed=True)
        for first in range(start, start + count, READ_AT_MOST)
    ]
    joined = {
        name: list(itertools.chain.from_iterable(part[name] for part in parts)) for name in parts[0]
    }
    if any(len(column) != count for column in joined.values()):
        raise InvalidAnswerError(
            f"the steps {start} to {start + count - 1} are not all sealed, though later ones are: "
            "check that client and server are of versions that fit"
        )
    return joined
