"""What a training does when its sealed values are used up and the server is away.

It waits, and stops when that takes too long; or it goes on for a while by itself, and tells the
server afterwards what was used. The latter is for a training in which one process decides for all.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pacesetter._bootstrap import Bootstrap
from pacesetter._errors import (
    APIError,
    AwaitingMeasurementError,
    ForeignAnswerError,
    InvalidAnswerError,
    PacesetterError,
    ServerError,
    ServerUnavailableError,
)
from pacesetter._prefetcher import Prefetcher
from pacesetter._reconcile import READ_AT_MOST, reconcile
from pacesetter._window import Window, forecast

KINDS = ("wait", "hold", "forecast")

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class OutagePolicy:
    """What to do when values are missing and the server is away.

    Attributes:
        kind: `wait` for the server for `max_wait` seconds, then raise; `hold` the last value; or
            follow the `forecast` that the server gave while it was reachable.
        patience: Seconds that a step waits before the training goes on by itself. Where that is not
            allowed, because it has lasted too long or no values are known, the step waits for
            `max_wait` and then raises.
        max_steps: The most steps that are trained without the server in one outage.
        max_seconds: The most seconds, likewise, as seen when a step asks for values.

    Raises:
        ValueError: One of the values makes no sense.
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
        """Return a policy, or the one of that kind with the usual bounds."""
        return given if isinstance(given, OutagePolicy) else cls(given)

    @property
    def goes_on(self) -> bool:
        """Whether the training may go on by itself."""
        return self.kind != "wait"


@dataclass(frozen=True)
class Outage:
    """News of an outage, a time without the server.

    Attributes:
        session: The session of the training.
        state: `began`; `over`; or `exhausted` when the policy allows no further step.
        kind: The kind of the policy.
        first: The first step trained without the server.
        step: The step that the training has reached.
        seconds: The time since the outage began for the training.
        reason: Why it began, for people.
    """

    session: str
    state: str
    kind: str
    first: int
    step: int
    seconds: float
    reason: str


OnOutage: TypeAlias = Callable[[Outage], object]


@dataclass
class Gap:
    """A time without the server: what was trained in it."""

    first: int
    began: float
    reason: str
    windows: list[Window]
    told_end: bool = False


class OutageFallback:
    """Supplies windows during outages: the prefetcher's, or its own while there are none.

    Belongs to the trainer's thread.
    """

    def __init__(
        self, prefetcher: Prefetcher, policy: OutagePolicy, stored: Bootstrap | None = None
    ) -> None:
        self._prefetcher = prefetcher
        self._sync = prefetcher.sync
        self._policy = policy
        self._forecast = stored.forecast if stored is not None else None
        self._sealed_until = stored.sealed_until if stored is not None else 0  # of the forecast
        self._forecast_revision = prefetcher.info.revision
        self._forecast_asked = False
        self._last: Window | None = None
        self._gap: Gap | None = None
        self._listeners: list[OnOutage] = []

    def listen(self, listener: OnOutage) -> None:
        """Call a function with each piece of news."""
        self._listeners.append(listener)

    def forget(self) -> None:
        """Drop what is known of an attempt that is over."""
        self._last = self._gap = self._forecast = None
        self._sync.undo_from(0)
        self._forecast_asked = False

    def go_back(self, step: int) -> None:
        """Train from another step on, still without the server: what came after it is undone."""
        gap = self._gap
        self._sync.undo_from(step)
        if gap is None:
            return
        if gap.windows and gap.first < step <= gap.windows[-1].stop:
            gap.windows = [each.part(each.start, step) for each in gap.windows if each.start < step]
        else:  # nothing of it was trained without the server
            gap.first, gap.windows = step, []

    def prime(self, step: int) -> None:
        """Get a forecast now, before anything can go wrong; later if the server is away."""
        if self._policy.kind == "forecast" and self._forecast is None:
            with contextlib.suppress(PacesetterError), self._sync.lock:
                self._read_forecast(step)

    def fetch(self, step: int, count: int) -> Window:
        """Return the window from `step`, the server's if it comes in time.

        Raises:
            ServerUnavailableError: It does not, and the policy allows no further step.
        """
        if self._gap is None:
            try:
                window = self._ask(step, count, waits=not self._knows(step))
            except ServerUnavailableError as error:
                if _awaits(error) or not self._knows(step):
                    raise
                self._gap = gap = Gap(step, time.monotonic(), str(error), [])
                self._tell(gap, "began", step)
                return self._stand_in(gap, step, count)
            self._keep(window)
            return window
        return self._fetch_in_gap(self._gap, step, count)

    def _fetch_in_gap(self, gap: Gap, step: int, count: int) -> Window:
        window = self._prefetcher.take(step)
        seconds, steps = time.monotonic() - gap.began, step - gap.first
        exhausted = steps >= self._policy.max_steps or seconds >= self._policy.max_seconds
        # The thread keeps asking. When it has nothing to do, it was refused: raise that here.
        stuck = exhausted or not self._knows(step)
        if window is None and (stuck or not self._prefetcher.busy):
            try:
                window = self._ask(step, count, waits=stuck)
            except ServerUnavailableError as error:
                if exhausted and not gap.told_end:
                    gap.told_end = True
                    self._tell(gap, "exhausted", step)
                if stuck or _awaits(error):
                    raise
        if window is None:
            return self._stand_in(gap, step, count)
        self._tell(gap, "over", step)
        self._gap = None
        trained = [each for each in gap.windows if each.start < step]
        if trained:
            self._prefetcher.send(functools.partial(reconcile, self._sync, trained, step))
        self._keep(window)
        return window

    def _ask(self, step: int, count: int, *, waits: bool) -> Window:
        """Return the window from the server, waiting no longer than the policy's patience.

        Args:
            step: The first step.
            count: How many.
            waits: Whether to wait as with the policy `wait`.
        """
        if waits:
            return self._prefetcher.fetch(step, count)
        patience = min(self._policy.patience, self._prefetcher.max_wait)
        try:
            return self._prefetcher.fetch(step, count, patience)
        except ServerUnavailableError as error:
            if not _awaits(error):
                raise
        return self._prefetcher.fetch(step, count, self._prefetcher.max_wait - patience)

    # -- values of our own -----------------------------------------------------------------------

    def _knows(self, step: int) -> bool:
        """Return whether there is anything to go on with at a step that may not be sealed."""
        known = self._forecast
        is_forecast = known is not None and step in known
        if step < (self._sync.state.horizon if self._gap is None else self._gap.first):
            # It is sealed, so nothing else may be used for it.
            return is_forecast and step < self._sealed_until
        return is_forecast if self._policy.kind == "forecast" else bool(self._last or known)

    def _stand_in(self, gap: Gap, step: int, count: int) -> Window:
        """Return values for about a tenth of a window, so that the server's are soon used again."""
        count = max(1, min(count // 10, gap.first + self._policy.max_steps - step))
        window = self._made_up(step, count)
        gap.windows.append(window)
        self._sync.trained_until = window.stop
        info = self._prefetcher.info
        left = info.within_plan(window.stop)
        if not self._prefetcher.busy and (left or not info.within_plan(window.start)):
            self._prefetcher.order(window.stop, min(count * 10, left or count * 10))
        return window

    def _made_up(self, step: int, count: int) -> Window:
        last, known = self._last, self._forecast
        if self._policy.kind == "forecast" or last is None:
            assert known is not None  # noqa: S101 - `_knows` was asked
            if self._policy.kind == "forecast":
                return known.part(step, step + count)
            last = known.part(known.start, max(known.start, min(step, known.stop - 1)) + 1)
        held = {name: [column[-1]] * count for name, column in last.columns.items()}
        return Window(step, held, sealed=False)

    def _keep(self, window: Window) -> None:
        """Remember what to go on with, and make sure that the forecast reaches far enough."""
        self._last = window
        if self._policy.kind != "forecast" or self._forecast_asked:
            return
        known = self._forecast.stop if self._forecast is not None else window.stop
        stale = self._forecast_revision != self._sync.state.revision
        if stale or known < window.stop + self._policy.max_steps:
            self._forecast_asked = True
            self._prefetcher.send(functools.partial(self._refresh, window.stop))

    def _refresh(self, start: int) -> None:
        try:
            self._read_forecast(start)
        except (APIError, InvalidAnswerError) as error:
            if isinstance(error, ServerError | ForeignAnswerError):
                raise
            logger.warning("no forecast of session %s: %s", self._prefetcher.info.name, error)
        self._forecast_asked = False

    def _read_forecast(self, start: int) -> None:
        revision, count = self._sync.state.revision, min(2 * self._policy.max_steps, READ_AT_MOST)
        columns = self._sync.values(start, count, sealed=False)
        self._sealed_until = 0  # first: the trainer may look at any moment
        self._forecast, self._forecast_revision = forecast(start, columns), revision

    # -- news ------------------------------------------------------------------------------------

    def _tell(self, gap: Gap, state: str, step: int) -> None:
        seconds = time.monotonic() - gap.began
        name, kind = self._prefetcher.info.name, self._policy.kind
        news = Outage(name, state, kind, gap.first, step, seconds, gap.reason)
        logger.warning("%s", _sentence(news, self._policy))
        for listener in self._listeners:
            listener(news)


def _awaits(error: ServerUnavailableError) -> bool:
    """Return whether the server answered, and was waiting for measurements of ranks."""
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
