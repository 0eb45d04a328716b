"""Keeping one session in step with the server: what is known of it, and what to tell it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pacesetter._attempts import Branch
from pacesetter._claim import Claim
from pacesetter._errors import InvalidRequestError, ServerUnavailableError
from pacesetter._info import SessionInfo
from pacesetter._reports import Reports, Value
from pacesetter._sync_channel import ONE_TRY, SyncChannel, SyncRequest, SyncState
from pacesetter._window import Answer, Window

logger = logging.getLogger("pacesetter")


class Synchronizer:
    """Owns the `SyncState` of one session; a thread that makes it call the server holds `lock`.

    Args:
        channel: Makes the calls.
        info: The session as it was described when it was opened.
        met: Whether the server described it, and not a bootstrap file.

    Attributes:
        state: What is known of the session, replaced with each answer.
        reports: Those that the server has not acknowledged.
        lock: Makes sure that exchanges do not overtake each other.
        trainer_waits: Whether a background exchange holds up the trainer, and must release the
            lock.
        trained_until: The step after the last one that was trained without the server.
        fetch_seconds: How long the last exchange took.
        progress: Where the trainer stands, and the seconds that a step takes, if known: the next
            exchange carries it, as it does `applied`.
        applied: A step, and what the optimizer really held at it.
        batch_size: How many samples are in one step of the attempts that are opened from now on.
    """

    def __init__(self, channel: SyncChannel, info: SessionInfo, *, met: bool = True) -> None:
        self.state = SyncState.of(info, met=met)
        self.trained_until = 0
        self.fetch_seconds = 0.0
        self._channel = channel
        self.progress: tuple[int, float | None] = (-1, None)
        self.batch_size: int | None = None
        self._claim: Claim | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """Make a child wait for none of the parent's locks, and send none of its reports."""
        self.lock = threading.RLock()  # which knows its owner
        self.trainer_waits = False
        self.reports = Reports()
        self.applied: tuple[int, Mapping[str, Value]] | None = None
        self._replacing = threading.Lock()  # of the state, which `note` does beside an exchange

    @contextlib.contextmanager
    def waiting_for(self, seconds: float) -> Iterator[float]:
        """Hold the lock, and yield the deadline by which all must be done.

        Raises:
            ServerUnavailableError: The lock could not be acquired, because a background exchange
                hangs.
        """
        deadline = time.monotonic() + seconds
        self.trainer_waits = True
        try:
            # Below 0 the deadline has passed; to a lock that would mean for ever, or nothing.
            held = self.lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            self.trainer_waits = False
            if not held:
                raise ServerUnavailableError(
                    f"the server has not answered for {seconds:g} s, the longest wait allowed: "
                    "see whether it is overloaded"
                )
            yield deadline
        finally:  # Ctrl-C ends the wait too, and may come between it and what follows
            self.trainer_waits = False
            try:  # noqa: SIM105 - it may come in `suppress` as well
                self.lock.release()
            except RuntimeError:  # it is not ours
                pass

    # -- what the trainer says, which the next exchange carries ----------------------------------

    def undo_from(self, step: int) -> None:
        """Note that nothing that was trained without the server from a step on counts any more."""
        self.trained_until = min(self.trained_until, step)

    def claim(self, claim: Claim) -> None:
        """Open an attempt before anything else is exchanged with the server."""
        self._claim = claim if self._claim is None else self._claim.merged(claim)
        with self._replacing:
            info = replace(self.state.info, attempt=self._claim.known)
            self.state = replace(self.state, info=info)

    # -- what the server says --------------------------------------------------------------------

    def note(self, answer: Answer) -> None:
        """Record what an exchange has brought, here or in another rank."""
        with self._replacing:
            self.state = self.state.after(answer)

    def follow(self, info: SessionInfo) -> None:
        """Go on in the session as it is described, which may be another attempt."""
        self._claim = self.applied = None
        with self._replacing:
            self.state = SyncState.of(info, takes_applied=self.state.takes_applied)

    def open_attempt(self, step: int, key: str, deadline: float) -> SessionInfo:
        """Go back to a step, in a new attempt or in the one of that key; raise what that raises."""
        name, size = self.state.info.name, self.batch_size
        info = self._channel.open_attempt(name, step, key, size, deadline)
        self.follow(info)
        return info

    def branch_off(self, branch: Branch, step: int, deadline: float) -> SessionInfo:
        """Go on from a step in another session; raise what creating it raises."""
        info = self._channel.branch_off(self.state.info.name, branch, step, deadline)
        self.follow(info)
        return info

    def values(self, start: int, count: int, *, sealed: bool) -> dict[str, list[float]]:
        """Return the session's values for some steps; see `SyncChannel.values`."""
        return self._channel.values(self.state, start, count, sealed=sealed)

    def resize(self, batch_size: int, deadline: float) -> None:
        """Tell the server how many samples are in one step from the horizon on.

        Raises:
            ConflictError: The session refuses that.
            ServerUnavailableError: The server was away until the deadline.
        """
        self._redeem(deadline)
        self._exchange(SyncRequest(batch_size=batch_size), deadline)
        self.batch_size = batch_size

    @property
    def leads(self) -> bool:
        """Whether this is the rank that speaks for the whole training."""
        return self._channel.rank == 0

    def finish(self, body: Mapping[str, Any], deadline: float) -> None:
        """Tell the server that the training of this attempt is over; see `Session.finish`.

        Raises:
            TransportError: The server is away.
            APIError: The server refused.
        """
        info = self.state.info
        self._channel.finish(info.name, {**body, "attempt": info.attempt}, deadline)

    def send_applied(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the server in one try what was used at a step, if it takes that."""
        if self.state.takes_applied:
            self._exchange(SyncRequest(applied=(step, values)), ONE_TRY)

    def window(self, deadline: float, want: tuple[int, int], *, reports: bool = True) -> Window:
        """Exchange the oldest reports for the window of `want[1]` steps from `want[0]`."""
        window = self.sync(deadline, want=want, reports=reports).window
        assert window is not None  # noqa: S101 - decode() makes sure
        return window

    def sync(
        self, deadline: float, *, want: tuple[int, int] | None = None, reports: bool = True
    ) -> Answer:
        """Send the oldest reports, without the metrics that the server refuses, and a request.

        Raises:
            ServerUnavailableError: The server was away until the deadline.
            TransportError: The server is away, and the deadline was `ONE_TRY`.
            APIError: The server refused; of reports that it would refuse again, none is kept.
            InvalidAnswerError: The server's answer is malformed.
        """
        self._redeem(deadline)
        if self.trained_until > self.state.horizon:
            self._seal_trained(deadline)
        for again in (True, False):
            number, batch = self.reports.batch() if reports else (0, [])
            request = SyncRequest(reports=batch, want=want, progress=self._said(want))
            try:
                answer = self._exchange_with_applied(request, deadline)
            except InvalidRequestError as error:
                if not self._drop_refused(number, error, deadline, again=again) or not again:
                    raise
            else:
                break
        self.reports.drop(number)
        self.reports.delivered()
        return answer

    def _redeem(self, deadline: float) -> None:
        """Settle what was claimed while the server was away, if anything was."""
        claim = self._claim
        if claim is None:
            return
        name = self.state.info.name
        info, begins_again = claim.redeem(self._channel, name, self.batch_size, deadline)
        if begins_again:
            self.trained_until = max(self.trained_until, claim.step + 1)
        self.follow(info)
        logger.warning(
            "session %s is in attempt %d, from step %d on", info.name, info.attempt, claim.step
        )

    def _seal_trained(self, deadline: float) -> None:
        """Seal the steps that were trained already: only reports on sealed steps are accepted.

        Where controllers decide on the way, they must have what was measured before.
        """
        if self.state.max_lookahead is not None:
            self._seal_by_decisions(deadline)
        if self.trained_until > self.state.horizon:
            want = (self.trained_until - 1, 1)
            self._exchange(SyncRequest(want=want, progress=self._said(want)), deadline)

    def _seal_by_decisions(self, deadline: float) -> None:
        before = -1
        while before < self.state.horizon < self.trained_until:
            before = self.state.horizon
            want = (before, min(self.trained_until - before, self.state.info.max_window))
            number, batch = self.reports.batch(below=before)
            request = SyncRequest(reports=batch, want=want, progress=self._said(want))
            try:
                self._exchange(request, deadline)
            except InvalidRequestError as error:
                self._drop_refused(number, error, deadline, again=False)
                raise
            self.reports.drop(number)

    def _said(self, want: tuple[int, int] | None) -> dict[str, float] | None:
        """Return where the trainer that requests a window stands."""
        if want is None:
            return None
        step, seconds = self.progress
        # The trainer is past what was trained without the server, whatever it said before.
        step = max(step, min(want[0], self.trained_until), 0)
        return {"step": step} if seconds is None else {"step": step, "seconds_per_step": seconds}

    def _exchange_with_applied(self, request: SyncRequest, deadline: float) -> Answer:
        """Exchange; what is said about the optimizer must cost neither reports nor values."""
        applied = self.applied
        if applied is None or not self.state.takes_applied:
            return self._exchange(request, deadline)
        self.applied = None
        try:
            return self._exchange(replace(request, applied=applied), deadline)
        except InvalidRequestError as error:
            answer = self._exchange(request, deadline)
            self._note_refused(error)
            return answer

    def _note_refused(self, error: InvalidRequestError) -> None:
        if any(each.get("pointer") == "/applied" for each in error.errors):
            with self._replacing:
                self.state = replace(self.state, takes_applied=False)
        else:
            logger.warning("of session %s: %s", self.state.info.name, error)

    def _exchange(self, request: SyncRequest, deadline: float) -> Answer:
        began = time.perf_counter()
        answer = self._channel.exchange(self.state, request, deadline)
        self.fetch_seconds = time.perf_counter() - began
        self.note(answer)
        return answer

    def _drop_refused(
        self, number: int, error: InvalidRequestError, deadline: float, *, again: bool
    ) -> bool:
        """Remove what would be refused again, and as little else as possible.

        Args:
            number: How many of the oldest reports were refused.
            error: Why.
            deadline: By when the server must have answered.
            again: Whether the rest can be sent again at once.

        Returns:
            Whether the rest may be sent again: only single metrics were removed, which is logged,
            or nothing, because the steps have been sealed since.
        """
        if error.code == "schedule_not_finite":
            return False  # it was about the window: the reports are accepted without it
        if error.code != "step_out_of_range":
            return self.reports.drop_pointed_at(number, error.errors)
        self.note(self._channel.look(self.state, deadline))
        start, horizon = self.state.info.start_step, self.state.horizon
        steps = range(start, horizon)
        if again and not self.reports.any_outside(number, steps):
            return True
        self.reports.drop_outside(number, steps)
        return False
