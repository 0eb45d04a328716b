"""The calls of one session to the server; each call is given all that it needs to know."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pacesetter._attempts import Branch
from pacesetter._errors import misfit
from pacesetter._info import SessionInfo
from pacesetter._opening import open_attempt, path_of
from pacesetter._reports import Value, encoded
from pacesetter._transport import Transport
from pacesetter._window import MEDIA_TYPE, Answer, Expected, checked, decode

ONE_TRY = 0.0  # as a deadline: do not wait at all
_LAST_CHANCE = 0.1


@dataclass(frozen=True)
class SyncState:
    """What a trainer knows of its session on the server between two exchanges.

    Attributes:
        info: The session as the server described it last.
        horizon: The first step that was not sealed, as of the last exchange.
        revision: Counts the changes of the session, as of the last exchange.
        max_lookahead: The most steps sealed ahead, as of the last exchange.
        epoch: The epoch of the server's database, as of the first exchange in this attempt.
        held: The step after the last that was handed out here in this attempt.
        met: Whether the server has answered since the session was opened; not yet, where a
            bootstrap file opened it.
        takes_applied: Whether the server takes what the optimizer held; older servers do not.
    """

    info: SessionInfo
    horizon: int
    revision: int
    max_lookahead: int | None
    epoch: str | None
    held: int = 0
    met: bool = True
    takes_applied: bool = True

    @classmethod
    def of(cls, info: SessionInfo, *, met: bool = True, takes_applied: bool = True) -> SyncState:
        """Return what is known when a session, or an attempt of it, has just been opened."""
        newest = (info.horizon, info.revision, info.max_lookahead, info.epoch)
        return cls(info, *newest, met=met, takes_applied=takes_applied)

    def after(self, answer: Answer) -> SyncState:
        """Return what is known after an exchange's answer, here or in another rank."""
        window = answer.window
        held = window.stop if window is not None and window.sealed else 0
        return replace(
            self,
            horizon=answer.horizon,
            revision=answer.revision,
            max_lookahead=answer.max_lookahead,
            epoch=self.epoch or answer.epoch,
            held=max(self.held, held),
            met=True,
        )

    def expected(self, want: tuple[int, int] | None, lr_bounds: tuple[float, float]) -> Expected:
        """Return what the answer to a request for a window must agree with."""
        start, count = want if want is not None else (None, 0)
        return Expected(
            self.info.attempt,
            self.info.series,
            start,
            count,
            lr_bounds,
            session=self.info.name,
            epoch=self.epoch,
            held=self.held,
        )


@dataclass(frozen=True)
class SyncRequest:
    """What a trainer says and asks for in one exchange.

    Attributes:
        reports: What was measured, in wire form.
        want: The first step and the number of steps of the window that is requested.
        progress: Where the trainer stands, which bounds how far the server seals ahead of it.
        applied: A step, and what the optimizer really held at it.
        batch_size: Samples in one step from the horizon on.
    """

    reports: Sequence[Mapping[str, Any]] = ()
    want: tuple[int, int] | None = None
    progress: Mapping[str, float] | None = None
    applied: tuple[int, Mapping[str, Value]] | None = None
    batch_size: int | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The request as JSON."""
        body: dict[str, Any] = {}
        if self.reports:
            body["reports"] = self.reports
        if self.want is not None:
            body["want"] = {"start": self.want[0], "count": self.want[1]}
            body["progress"] = self.progress
        if self.applied is not None:
            step, values = self.applied
            body["applied"] = {"step": step, "values": encoded(values)}
        if self.batch_size is not None:
            body["batch_size"] = self.batch_size
        return body


class SyncChannel:
    """Speaks to the server for one rank, without a memory of what was said.

    All methods raise `ServerUnavailableError` when the server was away until the deadline, and
    `TransportError` when it is away and the deadline was `ONE_TRY`.

    Args:
        transport: Carries the calls.
        rank: The rank under which the trainer reports.
        lr_bounds: Learning rates outside are refused.
    """

    def __init__(self, transport: Transport, rank: int, lr_bounds: tuple[float, float]) -> None:
        self._transport = transport
        self._rank = rank
        self._lr_bounds = lr_bounds
        # A training takes answers that are not Pacesetter's for an outage.
        self._json = functools.partial(transport.json, trains=True)

    @property
    def rank(self) -> int:
        """The rank under which the trainer reports."""
        return self._rank

    def exchange(self, state: SyncState, request: SyncRequest, deadline: float) -> Answer:
        """Exchange a request for an answer; `state.after(answer)` is what is known then.

        Raises:
            APIError: The server refused.
            InvalidAnswerError: The server's answer is malformed.
        """
        said: dict[str, Any] = {"attempt": state.info.attempt, "rank": self._rank}
        if state.epoch is not None:
            # So a replaced database refuses, instead of sealing anew what it has lost.
            said |= {"epoch": state.epoch, "held": state.held}
        return self._sync(state, {**said, **request.body}, request.want, deadline)

    def look(self, state: SyncState, deadline: float) -> Answer:
        """Return how far the session is sealed, without reporting anything."""
        return self._sync(state, {}, None, deadline)

    def _sync(
        self,
        state: SyncState,
        body: Mapping[str, Any],
        want: tuple[int, int] | None,
        deadline: float,
    ) -> Answer:
        expected = state.expected(want, self._lr_bounds)
        return self._transport.ask(
            functools.partial(decode, expected=expected),
            "POST",
            path_of(state.info.name) + "/sync",
            body=body,
            accept=MEDIA_TYPE,
            max_bytes=expected.max_bytes,
            wait=_seconds_until(deadline),
        )

    def values(
        self, state: SyncState, start: int, count: int, *, sealed: bool
    ) -> dict[str, list[float]]:
        """Return the session's values for some steps, without sealing any; there is no retry.

        Args:
            state: What is known of the session.
            start: The first step.
            count: How many; fewer may come.
            sealed: Whether to leave out values that are only forecast.
        """
        info = state.info
        params = {"step": start, "count": count}
        answer = self._json("GET", path_of(info.name) + "/lr", params=params)
        expected = state.expected((start, count), self._lr_bounds)
        try:
            count = answer["sealed_until"] - start if sealed else count
            return {
                name: checked(name, list(map(float, answer["series"][name][:count])), expected)
                for name in info.series
            }
        except (TypeError, ValueError, KeyError) as error:
            raise misfit(
                f"the server's values of {info.name} were refused, none was used: they are "
                f"no numbers for each series ({error!r})"
            ) from error

    def described(self, name: str, deadline: float) -> dict[str, Any]:
        """Return a session as the server describes it now."""
        return self._json("GET", path_of(name), wait=_seconds_until(deadline))

    def newest_attempt(self, name: str, deadline: float) -> tuple[int, str]:
        """Return the number and the key of a session's newest attempt."""
        path = path_of(name) + "/attempts"
        answer = self._json("GET", path, wait=_seconds_until(deadline))
        try:
            newest = answer["attempts"][-1]
            return int(newest["attempt"]), str(newest["key"])
        except (ValueError, TypeError, LookupError) as error:
            raise misfit(f"the server did not list the attempts of {name} ({error!r})") from error

    def open_attempt(
        self, name: str, step: int, key: str, batch_size: int | None, deadline: float
    ) -> SessionInfo:
        """Take a session back to a step, in a new attempt or in the one of that key.

        Raises:
            StaleAttemptError: A later attempt has taken over from the one of that key.
            ConflictError: The key opened an attempt at another step, or the batch size is refused.
            InvalidRequestError: No job has trained up to that step.
        """
        size = {} if batch_size is None else {"batch_size": batch_size}
        ask = functools.partial(self._json, wait=_seconds_until(deadline))
        return open_attempt(ask, name, {"step": step, "key": key, **size})

    def finish(self, name: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """Tell the server that the training of a session is over."""
        path, wait = path_of(name) + "/finish", _seconds_until(deadline)
        return self._json("POST", path, body=body, wait=wait)

    def branch_off(self, name: str, branch: Branch, step: int, deadline: float) -> SessionInfo:
        """Fork this session at a step, and return the fork.

        Raises:
            ConflictError: There is another session of that name.
            InvalidRequestError: No job has trained up to that step, or the description is refused.
        """
        path, wait = path_of(name) + "/fork", _seconds_until(deadline)
        answer = self._json("POST", path, body={**branch.body, "step": step}, wait=wait)
        return SessionInfo.parse(answer, branch.name)


def _seconds_until(deadline: float) -> float:
    return 0.0 if deadline == ONE_TRY else max(deadline - time.monotonic(), _LAST_CHANCE)
