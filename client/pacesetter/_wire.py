"""The exchange with the server for one session: reports out and a window in, one at a time."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pacesetter._errors import InvalidAnswerError, InvalidRequestError, ServerUnavailableError
from pacesetter._info import SessionInfo
from pacesetter._reports import Reports, Value, encoded
from pacesetter._transport import Transport
from pacesetter._window import MEDIA_TYPE, Answer, Expected, Window, checked, decode

ONE_TRY = 0.0  # as a deadline: do not wait at all
_LAST_CHANCE = 0.1

logger = logging.getLogger("pacesetter")


class Wire:
    """Carries one session's reports and windows; whoever calls `sync` or `window` holds `lock`.

    Attributes:
        reports: those that the server has not acknowledged.
        applied: a step and what the optimizer really held at it, for the next exchange.
        takes_applied: whether the server knows what that is; older ones do not.
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
        self.applied: tuple[int, Mapping[str, Value]] | None = None
        self.takes_applied = True
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
        self.applied = None

    def follow(self, info: SessionInfo) -> None:
        """Go on in the session as it is described, which may be another attempt."""
        self._info = info
        self.horizon = info.horizon
        self.revision = info.revision
        self.max_lookahead = info.max_lookahead
        self.applied = None

    def open_attempt(self, step: int, key: str, deadline: float) -> SessionInfo:
        """Have the session go back to a step, in a new attempt or in the one of that key.

        Raises:
            StaleAttemptError: a later attempt has taken over from the one of that key.
            ConflictError: the key opened an attempt at another step.
            InvalidRequestError: nobody has trained up to that step.
            ServerUnavailableError: the server was away until the deadline.
        """
        answer = self._transport.json(
            "POST",
            self._path.removesuffix("sync") + "attempts",
            body={"step": step, "key": key},
            wait=max(deadline - time.monotonic(), _LAST_CHANCE),
        )
        return SessionInfo.parse(answer, self._info.name)

    def values(self, start: int, count: int, *, sealed: bool) -> dict[str, list[float]]:
        """What the session says for some steps, without sealing any; asked for once.

        Args:
            start: the first step.
            count: how many; fewer may come.
            sealed: leave out those that are only forecast.
        """
        path = self._path.removesuffix("sync") + "lr"
        answer = self._transport.json("GET", path, params={"step": start, "count": count})
        expected = self._expected((start, count))
        try:
            count = answer["sealed_until"] - start if sealed else count
            return {
                name: checked(name, list(map(float, answer["series"][name][:count])), expected)
                for name in self._info.series
            }
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidAnswerError(
                f"the server's values of {self._info.name} were refused, none was used: they are "
                f"no numbers for each series ({error!r}): check that client and server are of "
                "versions that fit"
            ) from error

    def send_applied(self, step: int, values: Mapping[str, float]) -> None:
        """Tell what was used at a step, in one try; see `applied`."""
        self._exchange(
            {**self._base(), "applied": _applied(step, values)}, self._expected(None), ONE_TRY
        )

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
        body = self._base()
        if batch:
            body["reports"] = batch
        if want is not None:
            body["want"] = {"start": want[0], "count": want[1]}
        try:
            answer = self._exchange_with_applied(body, self._expected(want), deadline)
        except InvalidRequestError as error:
            self._drop_refused(number, error)
            raise
        self.reports.drop(number)
        self.reports.delivered()
        return answer

    def _base(self) -> dict[str, Any]:
        return {"attempt": self._info.attempt, "rank": self._rank}

    def _exchange_with_applied(
        self, body: Mapping[str, Any], expected: Expected, deadline: float
    ) -> Answer:
        """Exchange; what is said about the optimizer may cost neither reports nor values."""
        applied = self.applied
        if applied is None or not self.takes_applied:
            return self._exchange(body, expected, deadline)
        self.applied = None
        try:
            return self._exchange({**body, "applied": _applied(*applied)}, expected, deadline)
        except InvalidRequestError as error:
            answer = self._exchange(body, expected, deadline)
            self._note_refused(error)
            return answer

    def _note_refused(self, error: InvalidRequestError) -> None:
        if any(each.get("pointer") == "/applied" for each in error.errors):
            self.takes_applied = False
        else:
            logger.warning("of session %s: %s", self._info.name, error)

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
        self.note(answer)
        return answer

    def note(self, answer: Answer) -> None:
        """Know what an exchange has brought, here or in another rank."""
        self.horizon = answer.horizon
        self.revision = answer.revision
        self.max_lookahead = answer.max_lookahead

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


def _applied(step: int, values: Mapping[str, Value]) -> dict[str, Any]:
    return {"step": step, "values": encoded(values)}
