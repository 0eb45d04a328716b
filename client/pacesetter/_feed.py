"""The supply of one session: windows fetched ahead, reports taken away, by a daemon thread.

The thread never raises: what it cannot do is left to the trainer's own call, which waits, retries
and raises where somebody reads it.
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
from collections.abc import Callable

from pacesetter._attempts import Claim
from pacesetter._errors import (
    APIError,
    ClosedError,
    InvalidAnswerError,
    InvalidRequestError,
    PacesetterError,
    ServerError,
    SessionFinishedError,
    TransportError,
)
from pacesetter._fork import renew_in_child
from pacesetter._info import SessionInfo
from pacesetter._retry import delays
from pacesetter._transport import Transport
from pacesetter._window import Window
from pacesetter._wire import ONE_TRY, Wire

BATCH = 1000
FLUSH_SECONDS = 1.0
EXIT_SECONDS = 2.0
# What the thread needs of them, after its last exchange, to say what was lost.
_FOR_LAST_WORDS = 0.5

logger = logging.getLogger("pacesetter")


class Feed:
    """Supplies one session.

    It knows nothing of the `Session` that uses it, so that dropping the last reference to a session
    ends its thread.
    """

    def __init__(
        self,
        transport: Transport,
        info: SessionInfo,
        *,
        rank: int,
        max_wait: float,
        lr_bounds: tuple[float, float],
    ) -> None:
        self.wire = Wire(transport, info, rank=rank, lr_bounds=lr_bounds)
        # As many waiting reports call for the thread; one does while there is no thread yet.
        self.call_at = 1
        self._max_wait = max_wait
        self._ordered: tuple[int, int] | None = None
        self._ready: Window | None = None
        self._errands: deque[Callable[[], None]] = deque()
        self._closed = False
        self._until = ONE_TRY  # when the last delivery must be done
        self._away = False
        self._complaints: set[str] = set()
        self._renew()
        renew_in_child(self)
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)
        _feeds.add(self)

    def _renew(self) -> None:
        self._starting = threading.Lock()
        # Not an Event: `stop` may be called by the garbage collector at any point, even inside one.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Start afresh in a child: the parent delivers its own reports and its own order."""
        self._renew()
        self.wire.after_fork()
        self.call_at = 1
        self._ordered = None
        self._errands.clear()

    @property
    def info(self) -> SessionInfo:
        """The session as the server described it last."""
        return self.wire.info

    @property
    def max_wait(self) -> float:
        """Seconds that a trainer waits for the server at most."""
        return self._max_wait

    # -- what the trainer's thread calls ---------------------------------------------------------

    def call(self) -> None:
        """Have the thread deliver reports; called with each report from `call_at` on.

        Raises:
            ClosedError: the session was closed.
        """
        if self._closed:
            raise self._over()
        self._start()
        self.wire.reports.bound()
        waiting = len(self.wire.reports)
        self.call_at = BATCH
        if waiting >= BATCH:
            self.call_at += waiting
            if not self._away:  # else the thread pauses, and more reports are no reason to hurry
                self._wake.put(None)

    def order(self, start: int, count: int) -> None:
        """Have the thread fetch the window of `count` steps from `start`."""
        if not self._closed:
            self._ordered = (start, count)
            self._start()
            self._wake.put(None)

    @property
    def closed(self) -> bool:
        """Whether it was stopped."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether a window is ordered that has neither come nor been refused."""
        return self._ordered is not None

    def send(self, errand: Callable[[], None]) -> None:
        """Have the thread do something that talks to the server, again while that is away.

        It holds the wire, and raises nothing but what tells that the server is away.
        """
        if not self._closed:
            self._errands.append(errand)
            self._start()
            self._wake.put(None)

    def fetch(self, start: int, count: int, max_wait: float | None = None) -> Window:
        """The window from `start`, fetched ahead or now.

        Raises:
            ServerUnavailableError: the server was away for `max_wait` seconds.
            APIError: the server refused.
            InvalidAnswerError: the server answered nonsense.
        """
        if self._closed:
            raise self._over()
        window = self.take(start)
        if window is not None:
            return window
        wire = self.wire
        with wire.waiting_for(self._max_wait if max_wait is None else max_wait) as deadline:
            window = self.take(start)  # it may have come while this waited for the wire
            if window is not None:
                return window
            self._ordered = self._ready = None
            # A controller must have seen the reports before the next step is sealed.
            reacts = wire.max_lookahead is not None
            while reacts and not wire.reports.fit_one_batch():
                self._deliver_some(deadline)
            refused = wire.reports.refused
            try:
                return wire.window(deadline, (start, count), reports=reacts)
            except InvalidRequestError as error:
                if wire.reports.refused == refused:
                    raise
                # Only reports were refused, and are gone: that must not end the training.
                self._complain(error)
                return wire.window(deadline, (start, count), reports=reacts)

    def take(self, step: int) -> Window | None:
        """The window fetched ahead, if it holds `step`; then it is the caller's."""
        ready = self._ready
        if ready is None or step not in ready:
            return None
        self._ready = None
        return ready

    def restart(self, step: int, key: str) -> SessionInfo:
        """Go back to a step, in a new attempt or in the one of that key.

        Raises:
            ServerUnavailableError: the server was away for `max_wait` seconds.
            StaleAttemptError: a later attempt has taken over from the one of that key.
            APIError: the server refused.
        """
        if self._closed:
            raise self._over()
        with self.wire.waiting_for(self._max_wait) as deadline:
            info = self.wire.open_attempt(step, key, deadline)
            self._follow(info, step)
        return info

    def resize(self, batch_size: int) -> None:
        """Tell how many samples are in one step from now on.

        Raises:
            ConflictError: the session refuses that.
            ServerUnavailableError: the server was away for `max_wait` seconds.
        """
        if self._closed:
            raise self._over()
        with self.wire.waiting_for(self._max_wait) as deadline:
            self.wire.resize(batch_size, deadline)

    def follow(self, info: SessionInfo, step: int) -> None:
        """Go on in an attempt that another rank has opened at a step."""
        with self.wire.waiting_for(self._max_wait):
            self._follow(info, step)

    def _follow(self, info: SessionInfo, step: int) -> None:
        self.wire.follow(info)
        self._go_back(step)

    def claim(self, claim: Claim) -> bool:
        """Go back without the server, which is to open the attempt when it answers.

        Returns:
            Whether it is so; not if the server has answered before.
        """
        with self.wire.waiting_for(self._max_wait):
            if self.wire.met:
                return False
            self.wire.claim(claim)
            self._go_back(claim.step)
        return True

    def _go_back(self, step: int) -> None:
        self._ordered = self._ready = None
        self._errands.clear()
        dropped = self.wire.reports.drop_from(step)
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
            ServerUnavailableError: the server was away for `max_wait` seconds.
            APIError: the server refused.
        """
        if self._closed:
            raise self._over()
        with self.wire.waiting_for(self._max_wait) as deadline:
            while self.wire.reports:
                self.wire.sync(deadline)

    def deliver(self, seconds: float) -> bool:
        """Deliver all reports in so many seconds, if that can be; says what is left.

        Returns:
            Whether all were delivered.
        """
        try:
            with self.wire.waiting_for(seconds) as deadline:
                while self.wire.reports:
                    self._deliver_some(deadline)
        except PacesetterError as error:
            left = len(self.wire.reports)
            if left:
                name = self.info.name
                logger.warning("%d reports of session %s are not delivered: %s", left, name, error)
        return not self.wire.reports

    def stop(self, seconds: float = 0.0) -> None:
        """Have the thread make a last delivery and end; returns at once.

        Args:
            seconds: for which it tries at most; by default it tries once.
        """
        if seconds and not self._closed:
            self._until = time.monotonic() + seconds - _FOR_LAST_WORDS
        self._closed = True
        self.call_at = 0
        atexit.unregister(self._at_exit)
        self._wake.put(None)

    def join(self) -> None:
        """Wait for the thread that was stopped to end, for no longer than it was given.

        When it has ended, it has said what it could not deliver.
        """
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(self._until + _FOR_LAST_WORDS - time.monotonic(), 0.0))
            if thread.is_alive():
                self._count_losses()

    def _count_losses(self) -> None:
        if self.wire.reports:
            logger.warning(
                "%d reports of session %s were not delivered",
                len(self.wire.reports),
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
            except RuntimeError as error:  # no more threads: windows are fetched on demand then
                logger.warning("session %s goes on without its thread: %s", self.info.name, error)
            else:
                self._thread = thread

    def _run(self) -> None:
        pauses = delays()
        pause = FLUSH_SECONDS
        last = False
        while not last:
            self._sleep(pause)
            last = self._closed
            failed = self._work()
            self._away = failed is not None
            if failed is None:
                pauses, pause = delays(), FLUSH_SECONDS
            else:
                pause = max(next(pauses), failed)
        self._count_losses()

    def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()  # however often it was called, it works once

    def _work(self) -> float | None:
        """Fetch what was ordered and deliver what waits.

        Returns:
            None, or when the server is away the least seconds before the next try.
        """
        with self.wire.lock:
            try:
                self._serve()
            except (TransportError, ServerError, InvalidAnswerError) as error:
                logger.debug("in the background: %s", error)
                self.wire.reports.thin()
                return (isinstance(error, ServerError) and error.retry_after) or 0.0
            except SessionFinishedError:
                self._ordered = None  # no step is left; what was measured is taken all the same
            except InvalidRequestError as error:
                self._ordered = None  # the trainer's own fetch will raise, where somebody reads it
                self._complain(error)
            except Exception as error:
                # Fenced, archived, closed, or a fault of ours: nobody takes reports here any more.
                self._ordered = None
                self.wire.reports.drop(len(self.wire.reports))
                self._complain(error)
            return None

    def _serve(self) -> None:
        """One exchange when a window was ordered, then more until few reports are left."""
        want = None if self._closed else self._ordered
        if want is not None:
            window = self._ordered_window(want)
            if self._ordered == want:
                self._ready, self._ordered = window, None
        # What a quick trainer adds meanwhile waits for a batch of its own.
        due = 1
        while len(self.wire.reports) >= due and not self.wire.trainer_waits:
            self._deliver_some(self._until)
            due = 1 if self._closed else BATCH
        while self._errands and not self.wire.trainer_waits:
            self._errands[0]()  # stays first when the server is away
            self._errands.popleft()
        self.call_at = BATCH if not self._closed else 0

    def _deliver_some(self, deadline: float) -> None:
        """Deliver the oldest reports; those that are refused are complained about, and gone."""
        refused = self.wire.reports.refused
        try:
            self.wire.sync(deadline)
        except InvalidRequestError as error:
            if self.wire.reports.refused == refused:
                raise
            self._complain(error)

    def _ordered_window(self, want: tuple[int, int]) -> Window:
        try:
            return self.wire.window(ONE_TRY, want)
        except InvalidRequestError as error:
            self._complain(error)  # about a report, most likely, which may not cost the window
            return self.wire.window(ONE_TRY, want, reports=False)

    def _complain(self, error: Exception) -> None:
        """Log it, but not every second when the same mistake is made at every step."""
        code = error.code if isinstance(error, APIError) else type(error).__name__
        level = logging.DEBUG if code in self._complaints else logging.ERROR
        self._complaints.add(code)
        logger.log(level, "in the background, for session %s: %s", self.info.name, error)

    def _over(self) -> ClosedError:
        return ClosedError(f"session {self.info.name} is closed here: open it again")


_feeds: weakref.WeakSet[Feed] = weakref.WeakSet()


def _close_at_exit(ref: weakref.ref[Feed]) -> None:
    """Have every feed deliver what is left at once: the wait must not grow with their number."""
    if ref() is None:
        return
    feeds = [feed for feed in _feeds if not feed.closed]
    for feed in feeds:
        feed.stop(EXIT_SECONDS)
    for feed in feeds:
        feed.join()
