"""The exchange with the server for one session: reports out and a window in, one at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pacesetter._attempts import Claim
from pacesetter._errors import (
    InvalidAnswerError,
    InvalidRequestError,
    ServerUnavailableError,
    StaleAttemptError,
)
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
        info: the session as the server described it last.
        met: whether the server has answered since it was opened; not yet, if that was by a file.
        trained_until: the step after the last that was trained without the server.
        reports: those that the server has not acknowledged.
        applied: a step and what the optimizer really held at it, for the next exchange.
        takes_applied: whether the server knows what that is; older ones do not.
        batch_size: samples in one step, as the trainer said last; sent with attempts.
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
        self.info = info
        self.met = True
        self.trained_until = 0
        self.reports = Reports()
        self.applied: tuple[int, Mapping[str, Value]] | None = None
        self.takes_applied = True
        self.batch_size: int | None = None
        self.horizon = info.horizon
        self.revision = info.revision
        self.max_lookahead = info.max_lookahead
        self.fetch_seconds = 0.0
        self.lock = threading.Lock()
        self.trainer_waits = False
        self._claim: Claim | None = None
        self._transport = transport
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
        self.info = info
        self.met = True
        self._claim = None
        self.horizon = info.horizon
        self.revision = info.revision
        self.max_lookahead = info.max_lookahead
        self.applied = None

    def claim(self, claim: Claim) -> None:
        """Have an attempt opened before anything else is exchanged with the server."""
        self._claim = claim if self._claim is None else self._claim.merged(claim)
        self.info = dataclasses.replace(self.info, attempt=self._claim.known)

    def _redeem(self, claim: Claim, deadline: float) -> None:
        """Open the attempt that was claimed, if anybody has trained beyond its first step."""
        number, key = self._newest_attempt(deadline)
        if number > claim.known and key != claim.key:
            raise StaleAttemptError(
                f"attempt {number} of session {self.info.name} was opened meanwhile, and this "
                f"training began at step {claim.step} without the server, knowing of attempt "
                f"{claim.known}: stop it, or start it again from its newest checkpoint while the "
                "server is there",
                status=409,
                code="stale_attempt",
            )
        path = self._path.removesuffix("/sync")
        answer = self._transport.json("GET", path, wait=_seconds_until(deadline))
        info = SessionInfo.parse(answer, self.info.name)
        if key == claim.key or claim.step < info.horizon:
            info = self.open_attempt(claim.step, claim.key, deadline)
        self.follow(info)
        logger.warning(
            "session %s is in attempt %d, from step %d on", info.name, info.attempt, claim.step
        )

    def _newest_attempt(self, deadline: float) -> tuple[int, str]:
        path = self._path.removesuffix("sync") + "attempts"
        content = self._transport.send("GET", path, wait=_seconds_until(deadline))
        try:
            newest = json.loads(content)[-1]
            return int(newest["attempt"]), str(newest["key"])
        except (ValueError, TypeError, LookupError) as error:
            raise InvalidAnswerError(
                f"the server did not list the attempts of {self.info.name} ({error!r}): check that "
                "client and server are of versions that fit"
            ) from error

    def open_attempt(self, step: int, key: str, deadline: float) -> SessionInfo:
        """Have the session go back to a step, in a new attempt or in the one of that key.

        Raises:
            StaleAttemptError: a later attempt has taken over from the one of that key.
            ConflictError: the key opened an attempt at another step, or the batch size is refused.
            InvalidRequestError: nobody has trained up to that step.
            ServerUnavailableError: the server was away until the deadline.
        """
        answer = self._transport.json(
            "POST",
            self._path.removesuffix("sync") + "attempts",
            body={"step": step, "key": key, **self._batch()},
            wait=_seconds_until(deadline),
        )
        return SessionInfo.parse(answer, self.info.name)

    def resize(self, batch_size: int, deadline: float) -> None:
        """Tell how many samples are in one step from the horizon on.

        Raises:
            ConflictError: the session refuses that.
            ServerUnavailableError: the server was away until the deadline.
        """
        if self._claim is not None:
            self._redeem(self._claim, deadline)
        body = {**self._base(), "batch_size": batch_size}
        self._exchange(body, self._expected(None), deadline)
        self.batch_size = batch_size

    def _batch(self) -> dict[str, int]:
        return {} if self.batch_size is None else {"batch_size": self.batch_size}

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
                for name in self.info.series
            }
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidAnswerError(
                f"the server's values of {self.info.name} were refused, none was used: they are "
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
        try:
            held = self.lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:  # Ctrl-C ends the wait too
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
        """Send the oldest reports, and a wish; without the metrics that the server refuses.

        Raises:
            ServerUnavailableError: the server was away until the deadline.
            TransportError: it is away, and the deadline was `ONE_TRY`.
            APIError: it refused; of reports that it would refuse again, none is kept.
            InvalidAnswerError: it answered nonsense.
        """
        if self._claim is not None:
            self._redeem(self._claim, deadline)
        if self.trained_until > self.horizon:
            self._seal_trained(deadline)
        for again in (True, False):
            number, batch = self.reports.batch() if reports else (0, [])
            body = self._body(batch, want)
            try:
                answer = self._exchange_with_applied(body, self._expected(want), deadline)
            except InvalidRequestError as error:
                if not self._drop_refused(number, error, deadline) or not again:
                    raise
            else:
                break
        self.reports.drop(number)
        self.reports.delivered()
        return answer

    def _seal_trained(self, deadline: float) -> None:
        """Have the steps sealed that were trained already: no other's reports are taken.

        Where controllers decide on the way, they are to have what was measured before.
        """
        if self.max_lookahead is not None:
            self._seal_by_decisions(deadline)
        if self.trained_until > self.horizon:
            want = (self.trained_until - 1, 1)
            self._exchange(self._body([], want), self._expected(want), deadline)

    def _seal_by_decisions(self, deadline: float) -> None:
        before = -1
        while before < self.horizon < self.trained_until:
            before = self.horizon
            want = (before, min(self.trained_until - before, self.info.max_window))
            number, batch = self.reports.batch(below=before)
            try:
                self._exchange(self._body(batch, want), self._expected(want), deadline)
            except InvalidRequestError as error:
                self._drop_refused(number, error, deadline)
                raise
            self.reports.drop(number)

    def _body(self, reports: list[dict[str, Any]], want: tuple[int, int] | None) -> dict[str, Any]:
        body = self._base()
        if reports:
            body["reports"] = reports
        if want is not None:
            body["want"] = {"start": want[0], "count": want[1]}
        return body

    def _base(self) -> dict[str, Any]:
        return {"attempt": self.info.attempt, "rank": self._rank}

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
            logger.warning("of session %s: %s", self.info.name, error)

    def _exchange(self, body: Mapping[str, Any], expected: Expected, deadline: float) -> Answer:
        began = time.perf_counter()
        content = self._transport.send(
            "POST",
            self._path,
            body=body,
            accept=MEDIA_TYPE,
            max_bytes=expected.max_bytes,
            wait=_seconds_until(deadline),
        )
        answer = decode(content, expected)
        self.fetch_seconds = time.perf_counter() - began
        self.note(answer)
        return answer

    def note(self, answer: Answer) -> None:
        """Know what an exchange has brought, here or in another rank."""
        self.met = True
        self.horizon = answer.horizon
        self.revision = answer.revision
        self.max_lookahead = answer.max_lookahead

    def _drop_refused(self, number: int, error: InvalidRequestError, deadline: float) -> bool:
        """Remove what would be refused again, and as little else as can be told.

        Returns:
            Whether it was single metrics, which is logged; the rest may be sent again.
        """
        if error.code == "schedule_not_finite":
            return False  # it was about the window: the reports are taken without it
        if error.code != "step_out_of_range":
            return self.reports.drop_pointed_at(number, error.errors)
        self._exchange({}, self._expected(None), deadline)  # brings the horizon
        self.reports.drop_outside(number, range(self.info.start_step, self.horizon))
        return False

    def _expected(self, want: tuple[int, int] | None) -> Expected:
        start, count = want if want is not None else (None, 0)
        return Expected(
            self.info.attempt,
            self.info.series,
            start,
            count,
            self._lr_bounds,
            session=self.info.name,
        )


def _seconds_until(deadline: float) -> float:
    return 0.0 if deadline == ONE_TRY else max(deadline - time.monotonic(), _LAST_CHANCE)


def _applied(step: int, values: Mapping[str, Value]) -> dict[str, Any]:
    return {"step": step, "values": encoded(values)}
