"""The supply of one session: a daemon thread fetches windows ahead, and delivers reports.

The thread never raises. What it cannot do is left to the trainer's own call, which waits, retries,
and raises where the trainer sees it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pacesetter._attempts import REFUSALS, Branch
from pacesetter._claim import Claim
from pacesetter._errors import (
    APIError,
    AuthenticationError,
    ClosedError,
    ForeignAnswerError,
    HistoryLostError,
    InvalidAnswerError,
    InvalidRequestError,
    PacesetterError,
    PermissionDeniedError,
    ServerError,
    ServerUnavailableError,
    SessionFinishedError,
    StaleAttemptError,
    TransportError,
)
from pacesetter._fork import at_end_of_worker, renew_in_child
from pacesetter._info import SessionInfo
from pacesetter._retry import LONGEST_DELAY, delays
from pacesetter._sync_channel import ONE_TRY, SyncChannel
from pacesetter._synchronizer import Synchronizer
from pacesetter._window import Window

BATCH = 1000
FLUSH_SECONDS = 1.0
EXIT_SECONDS = 2.0
# Seconds that the thread needs, after its last exchange, to say what was lost.
_FOR_LAST_WORDS = 0.5

logger = logging.getLogger("pacesetter")


class Prefetcher:
    """Supplies one session.

    It knows nothing of the `Session` that uses it, so that dropping the last reference to a session
    ends its thread.

    Attributes:
        sync: Keeps what is known of the session, and what to tell the server about it.
        max_wait: The most seconds that a trainer waits for the server.
        call_at: The number of waiting reports that calls the thread; 1 while it has not started
            yet.
        closed: Whether it was stopped.
    """

    def __init__(
        self, channel: SyncChannel, info: SessionInfo, *, max_wait: float, met: bool = True
    ) -> None:
        self.sync = Synchronizer(channel, info, met=met)
        self.max_wait = max_wait
        self.closed = False
        self._ready: Window | None = None
        self._until = ONE_TRY  # when the last delivery must be done
        self._away = False
        self._goes_back = False  # and it is not known yet to which attempt
        self._holds = False  # reports that the server takes only for that attempt
        self._complaints: set[str] = set()
        self._renew()
        renew_in_child(self)
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        _prefetchers.add(self)

    def _renew(self) -> None:
        self._starting = threading.Lock()
        # Not an Event: `stop` may be called by the garbage collector at any point, even inside one.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.call_at = 1
        self._ordered: tuple[int, int] | None = None
        self._errands: deque[Callable[[], None]] = deque()

    def after_fork(self) -> None:
        """Start afresh in a child: the parent keeps its own reports and its own order."""
        self._renew()
        self.sync.after_fork()

    @property
    def info(self) -> SessionInfo:
        """The session as the server described it last."""
        return self.sync.state.info

    @property
    def is_left(self) -> bool:
        """Whether it was told to try once, and the server has yet to be told something."""
        return self.closed and self._until == ONE_TRY and self._owes

    @property
    def _owes(self) -> bool:
        return bool(self.sync.reports or self._errands)

    # -- what the trainer's thread calls ---------------------------------------------------------

    def call(self) -> None:
        """Wake the thread to deliver reports; called with each report from `call_at` on.

        Raises:
            ClosedError: The session was closed.
        """
        self._check_open()
        self._start()
        self.sync.reports.bound()
        waiting = len(self.sync.reports)
        self.call_at = BATCH
        if waiting >= BATCH:
            self.call_at += waiting
            if not self._away:  # else the thread pauses, and more reports must not hurry it
                self._wake.put(None)

    def order(self, start: int, count: int) -> None:
        """Make the thread fetch the window of `count` steps from `start`."""
        if not self.closed:
            self._ordered = (start, count)
            self._start()
            self._wake.put(None)

    @property
    def busy(self) -> bool:
        """Whether an ordered window has neither come nor been refused."""
        return self._ordered is not None

    def send(self, errand: Callable[[], None]) -> None:
        """Hand the thread an errand at the server; it retries while the server is away.

        The errand runs with the lock held, and raises only errors that say the server is away.
        """
        if not self.closed:
            self._errands.append(errand)
            self._start()
            self._wake.put(None)

    def fetch(self, start: int, count: int, max_wait: float | None = None) -> Window:
        """Return the window from `start`, fetched ahead or now.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds.
            APIError: The server refused.
            InvalidAnswerError: The server's answer makes no sense.
        """
        self._check_open()
        window = self.take(start)
        if window is not None:
            return window
        with self._exchanging(max_wait) as deadline:
            # The window may have come while this thread waited for the lock.
            return self.take(start) or self._fetch_now(deadline, (start, count))

    def _fetch_now(self, deadline: float, want: tuple[int, int]) -> Window:
        sync = self.sync
        self._ordered = self._ready = None
        # A controller must have seen the reports before the next step is sealed.
        reacts = sync.state.max_lookahead is not None
        while reacts and not sync.reports.fit_one_batch():
            self._deliver_some(deadline)
        window = None
        with self._forgiving_reports():
            window = sync.window(deadline, want, reports=reacts)
        return window or sync.window(deadline, want, reports=reacts)

    def take(self, step: int) -> Window | None:
        """Return the window fetched ahead, if it holds `step`; then it is the caller's."""
        ready = self._ready
        if ready is None or step not in ready:
            return None
        self._ready = None
        return ready

    def restart(self, step: int, key: str, *, drops: bool = True) -> SessionInfo:
        """Go back to a step, in a new attempt or in the one of that key.

        Args:
            step: The first step that is trained again.
            key: The key of the attempt.
            drops: Whether reports of that and later steps are undone, and dropped.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds.
            StaleAttemptError: A later attempt has taken over from the one of that key.
            APIError: The server refused.
        """
        with self._exchanging() as deadline, self.going_back():
            info = self.sync.open_attempt(step, key, deadline)
            self._go_back(step, drops=drops)
        return info

    @contextlib.contextmanager
    def going_back(self) -> Iterator[None]:
        """Keep reports, while the session goes back, although the attempt that it leaves is fenced.

        If the answer is lost, the session stays on its way until the trainer goes back again: the
        reports of earlier steps are the next attempt's too. Until then the thread calls no server
        that has refused them, and thins them out as in an outage.
        """
        self._goes_back = True
        try:
            yield
        except REFUSALS:
            self._arrive()
            raise
        self._arrive()

    def _arrive(self) -> None:
        self._goes_back = self._holds = False
        self._wake.put(None)

    def open_at(self, step: int, count: int) -> None:
        """Seal the first window of an attempt before any report of it is delivered.

        If the server is away, the step is sealed with the next exchange.
        """
        try:
            with self.sync.waiting_for(self.max_wait) as deadline:
                self._ready = self.sync.window(deadline, (step, count), reports=False)
        except ServerUnavailableError:
            self.sync.trained_until = step + 1

    def look(self, step: int) -> Window:
        """Return the forecast window of one step, without sealing anything.

        Raises:
            TransportError: The server was away.
            APIError: The server refused.
        """
        with self._exchanging():
            return Window(step, self.sync.values(step, 1, sealed=False), sealed=False)

    def branch_off(self, branch: Branch, step: int) -> SessionInfo:
        """Create another session that goes on from a step of this one, and continue in it.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds.
            APIError: The server refused.
        """
        with self._exchanging() as deadline:
            info = self.sync.branch_off(branch, step, deadline)
            self._go_back(step)
        return info

    def resize(self, batch_size: int) -> None:
        """Tell the server how many samples are in one step from now on.

        Raises:
            ConflictError: The session refuses that.
            ServerUnavailableError: The server was away for `max_wait` seconds.
        """
        with self._exchanging() as deadline:
            self.sync.resize(batch_size, deadline)

    def finish(self, body: Mapping[str, Any]) -> None:
        """Deliver all reports, and say that the training is over; raise what `flush` raises."""
        with self._exchanging() as deadline:
            while self.sync.reports:
                self.sync.sync(deadline)
            self.sync.finish(body, deadline)

    def finish_soon(self, body: Mapping[str, Any]) -> None:
        """Make the thread report the end of the training, once its reports are delivered."""

        def tell() -> None:
            try:
                self.sync.finish(body, ONE_TRY)
            except (ServerError, TransportError, ForeignAnswerError):
                raise  # the server is away: retry as long as there is time
            except PacesetterError as error:  # an older server, or another attempt has begun
                logger.debug("session %s is not finished: %s", self.info.name, error)

        self.send(tell)

    def follow(self, info: SessionInfo, step: int) -> None:
        """Go on in an attempt that another rank has opened at a step."""
        with self.sync.waiting_for(self.max_wait):
            self.sync.follow(info)
            self._go_back(step)

    def claim(self, claim: Claim) -> bool:
        """Ask the server, with the next exchange, to open the attempt or to judge the session.

        Returns:
            Whether it was claimed; an attempt is not, if the server has answered before.
        """
        with self.sync.waiting_for(self.max_wait):
            if self.sync.state.met and claim.opener is None:
                return False
            self.sync.claim(claim)
            self._go_back(claim.step, drops=claim.opener is None)
        return True

    def _go_back(self, step: int, *, drops: bool = True) -> None:
        self._arrive()
        self._ordered = self._ready = None
        self._errands.clear()
        dropped = self.sync.reports.drop_from(step) if drops else 0
        if dropped:
            logger.warning(
                "session %s goes back to step %d: %d reports of that and later steps were not "
                "delivered and are dropped",
                self.info.name,
                step,
                dropped,
            )

    def flush(self) -> None:
        """Deliver all reports now.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds.
            APIError: The server refused.
        """
        with self._exchanging() as deadline:
            while self.sync.reports:
                self.sync.sync(deadline)

    def deliver(self, seconds: float) -> bool:
        """Deliver all reports within these seconds, if possible; say what is left.

        Returns:
            Whether all were delivered.
        """
        try:
            with self.sync.waiting_for(seconds) as deadline:
                while self.sync.reports:
                    self._deliver_some(deadline)
        except PacesetterError as error:
            left = len(self.sync.reports)
            if left:
                name = self.info.name
                logger.warning("%d reports of session %s are not delivered: %s", left, name, error)
        return not self.sync.reports

    def stop(self, seconds: float = 0.0) -> None:
        """Tell the thread to make a last delivery and end; do not wait for it.

        Args:
            seconds: How long it tries, at most; by default it tries once.
        """
        if seconds and self._until == ONE_TRY:
            self._until = time.monotonic() + seconds - _FOR_LAST_WORDS
        self.closed = True
        self.call_at = 0
        if seconds or not self._owes:
            atexit.unregister(self._at_exit)
        # Otherwise the process may end before the thread is done, which then gets more time.
        self._wake.put(None)

    def join(self) -> None:
        """Wait for the stopped thread to end, no longer than the time it was given.

        By its end it has said what it could not deliver.
        """
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(self._until + _FOR_LAST_WORDS - time.monotonic(), 0.0))
            if thread.is_alive():
                self._count_losses()

    def _count_losses(self) -> None:
        if self.sync.reports:
            logger.warning(
                "%d reports of session %s were not delivered",
                len(self.sync.reports),
                self.info.name,
            )

    # -- the thread ------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            name = f"pacesetter-{self.info.name}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: then windows are fetched on demand
                logger.warning("session %s goes on without its thread: %s", self.info.name, error)
            else:
                self._thread = thread
                at_end_of_worker(_close_all)

    def _run(self) -> None:
        pauses = delays()
        pause = FLUSH_SECONDS
        last = False
        while not last:
            self._sleep(pause)
            closed, until = self.closed, self._until
            failed = self._work()
            # The end of the process gives a session that was dropped more time than one try.
            last = closed and (until == self._until or not self._owes)
            self._away = failed is not None
            if failed is None:
                pauses, pause = delays(), FLUSH_SECONDS
            else:
                pause = max(next(pauses), failed)
        self._count_losses()
        atexit.unregister(self._at_exit)

    def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()  # however often the thread was called, it works once

    def _work(self) -> float | None:
        """Fetch what was ordered and deliver what waits.

        Returns:
            None, or, when the server is away, the least seconds before the next try.
        """
        with self.sync.lock:
            if self._holds and not self.closed:
                return self._hold()
            try:
                self._serve()
            except StaleAttemptError as error:
                if self._goes_back:
                    return self._hold()
                self._give_up(error)
            except (TransportError, ServerError, InvalidAnswerError) as error:
                logger.debug("in the background: %s", error)
                self.sync.reports.thin()
                return (isinstance(error, ServerError) and error.retry_after) or 0.0
            except (AuthenticationError, PermissionDeniedError) as error:
                # A token may be renewed, a proxy repaired: keep what was measured until then.
                self._ordered = None  # the trainer's own fetch will raise, where it is seen
                self._complain(error)
                self.sync.reports.thin()
                return LONGEST_DELAY
            except SessionFinishedError:
                self._ordered = None  # no step is left; what was measured is still accepted
            except (InvalidRequestError, HistoryLostError) as error:
                self._ordered = None  # the trainer's own fetch will raise; reports wait for it
                self._complain(error)
            except Exception as error:
                self._give_up(error)
            return None

    def _hold(self) -> float:
        """Keep what was measured for the attempt that the session goes back to."""
        self._ordered = None
        self._holds = True
        self.sync.reports.thin()
        return LONGEST_DELAY

    def _give_up(self, error: Exception) -> None:
        """Drop all reports: fenced, archived, closed, or a fault of ours, and none is taken."""
        self._ordered = None
        self.sync.reports.drop(len(self.sync.reports))
        self._complain(error)

    def _serve(self) -> None:
        """Exchange once if a window was ordered, then again until few reports are left."""
        want = None if self.closed else self._ordered
        if want is not None:
            window = self._ordered_window(want)
            if self._ordered == want:
                self._ready, self._ordered = window, None
        # Reports that a quick trainer adds meanwhile wait for a batch of their own.
        due = 1
        while len(self.sync.reports) >= due and not self.sync.trainer_waits:
            self._deliver_some(self._until)
            due = 1 if self.closed else BATCH
        while self._errands and not self.sync.trainer_waits:
            self._errands[0]()  # stays first when the server is away
            self._errands.popleft()
        self.call_at = BATCH if not self.closed else 0

    def _deliver_some(self, deadline: float) -> None:
        """Deliver the oldest reports; log a complaint about refused ones, which are dropped."""
        with self._forgiving_reports():
            self.sync.sync(deadline)

    @contextlib.contextmanager
    def _forgiving_reports(self) -> Iterator[None]:
        """Log where only reports are refused, and dropped: that must not end the training."""
        refused = self.sync.reports.refused
        try:
            yield
        except InvalidRequestError as error:
            if self.sync.reports.refused == refused:
                raise
            self._complain(error)

    def _ordered_window(self, want: tuple[int, int]) -> Window:
        try:
            return self.sync.window(ONE_TRY, want)
        except InvalidRequestError as error:
            self._complain(error)  # about a report, most likely, which must not cost the window
            return self.sync.window(ONE_TRY, want, reports=False)

    def _complain(self, error: Exception) -> None:
        """Log an error, but not every second when the same mistake is made at every step."""
        code = error.code if isinstance(error, APIError) else type(error).__name__
        level = logging.DEBUG if code in self._complaints else logging.ERROR
        self._complaints.add(code)
        logger.log(level, "in the background, for session %s: %s", self.info.name, error)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"session {self.info.name} is closed here: open it again")

    @contextlib.contextmanager
    def _exchanging(self, max_wait: float | None = None) -> Iterator[float]:
        """Let the trainer's own thread call the server; yield the deadline."""
        self._check_open()
        with self.sync.waiting_for(self.max_wait if max_wait is None else max_wait) as deadline:
            yield deadline


_prefetchers: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


def _close_at_exit(ref: weakref.ref[Prefetcher]) -> None:
    if ref() is not None:
        _close_all()


def _close_all() -> None:
    """Make all deliver what is left simultaneously: the wait must not grow with their number.

    A session that was dropped was only told to try once, and no caller has waited for that.
    """
    last_ones = [each for each in _prefetchers if not each.closed or each.is_left]
    for each in last_ones:
        each.stop(EXIT_SECONDS)
    for each in last_ones:
        each.join()
