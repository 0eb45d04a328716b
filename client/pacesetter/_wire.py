"""The exchange with the server for one session: reports out and a window in, one at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pacesetter._errors import InvalidRequestError, ServerUnavailableError
from pacesetter._info import SessionInfo
from pacesetter._reports import Reports
from pacesetter._transport import Transport
from pacesetter._window import MEDIA_TYPE, Answer, Expected, Window, decode

ONE_TRY = 0.0  # as a deadline: do not wait at all
_LAST_CHANCE = 0.1


class Wire:
    """Carries one session's reports and windows; whoever calls `sync` or `window` holds `lock`.

    Attributes:
        reports: those that the server has not acknowledged.
        horizon: the first step not sealed yet, as of the last exchange.
        revision: of the session, as of the last exchange.
        max_lookahead: the same.
        fetch_seconds: what the last exchange took.
        lock: makes sure that exchanges do not overtake each other.
        trainer_waits: somebody is held up by the background exchanges: let go of the lock.
    """

    def __init__(
        self,
        transport: Transport,
        info: SessionInfo,
        *,
        rank: int,
        lr_bounds: tuple[float, float],
    ) -> None:
        self.reports = Reports()
        self.horizon = info.horizon
        self.revision = info.revision
        self.max_lookahead = info.max_lookahead
        self.fetch_seconds = 0.0
        self.lock = threading.Lock()
        self.trainer_waits = False
        self._transport = transport
        self._info = info
        self._path = f"/v1/sessions/{quote(info.name, safe='')}/sync"
        self._rank = rank
        self._lr_bounds = lr_bounds

    def after_fork(self) -> None:
        """Have a child wait for no lock of the parent's, and send none of its reports."""
        self.lock = threading.Lock()
        self.trainer_waits = False
        self.reports = Reports()

    @contextlib.contextmanager
    def waiting_for(self, seconds: float) -> Iterator[float]:
        """Hold the lock; gives the deadline by which all must be done.

        Raises:
            ServerUnavailableError: it could not be had, because a background exchange hangs.
        """
        deadline = time.monotonic() + seconds
        self.trainer_waits = True
        held = self.lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        self.trainer_waits = False
        if not held:
            raise ServerUnavailableError(
                f"the server has not answered for {seconds:g} s, the longest wait allowed: "
                "see whether it is overloaded"
            )
        try:
            yield deadline
        finally:
            self.lock.release()

    def window(self, deadline: float, want: tuple[int, int], *, reports: bool = True) -> Window:
        """Exchange the oldest reports for the window of `want[1]` steps from `want[0]`."""
        window = self.sync(deadline, want=want, reports=reports).window
        assert window is not None  # noqa: S101 - decode() makes sure
        return window

    def sync(
        self, deadline: float, *, want: tuple[int, int] | None = None, reports: bool = True
    ) -> Answer:
        """Send the oldest reports, and a wish.

        Raises:
            ServerUnavailableError: the server was away until the deadline.
            TransportError: it is away, and the deadline was `ONE_TRY`.
            APIError: it refused; of reports that it would refuse again, none is kept.
            InvalidAnswerError: it answered nonsense.
        """
        number, batch = self.reports.batch() if reports else (0, [])
        body: dict[str, Any] = {"attempt": self._info.attempt, "rank": self._rank}
        if batch:
            body["reports"] = batch
        if want is not None:
            body["want"] = {"start": want[0], "count": want[1]}
        try:
            answer = self._exchange(body, self._expected(want), deadline)
        except InvalidRequestError as error:
            self._drop_refused(number, error)
            raise
        self.reports.drop(number)
        self.reports.delivered()
        return answer

    def _exchange(self, body: Mapping[str, Any], expected: Expected, deadline: float) -> Answer:
        began = time.perf_counter()
        left = deadline - time.monotonic()
        content = self._transport.send(
            "POST",
            self._path,
            body=body,
            accept=MEDIA_TYPE,
            max_bytes=expected.max_bytes,
            wait=0.0 if deadline == ONE_TRY else max(left, _LAST_CHANCE),
        )
        answer = decode(content, expected)
        self.fetch_seconds = time.perf_counter() - began
        self.horizon = answer.horizon
        self.revision = answer.revision
        self.max_lookahead = answer.max_lookahead
        return answer

    def _drop_refused(self, number: int, error: InvalidRequestError) -> None:
        """Remove what would be refused again, and as little else as can be told."""
        if error.code == "schedule_not_finite":
            return  # it was about the window: the reports are taken without it
        if error.code != "step_out_of_range":
            self.reports.drop_pointed_at(number, error.errors)
            return
        self._exchange({}, self._expected(None), ONE_TRY)  # brings the horizon
        self.reports.drop_outside(number, range(self._info.start_step, self.horizon))

    def _expected(self, want: tuple[int, int] | None) -> Expected:
        start, count = want if want is not None else (None, 0)
        return Expected(
            self._info.attempt,
            self._info.series,
            start,
            count,
            self._lr_bounds,
            session=self._info.name,
        )
