"""A session as a trainer sees it: the value of any step, from memory, and a sink for reports."""

from __future__ import annotations

import operator
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pacesetter._core import SessionCore, WayBack
from pacesetter._errors import GroupError
from pacesetter._info import SessionInfo
from pacesetter._listeners import OnReport, Subscription
from pacesetter._notebook import Look, session_card, shown
from pacesetter._notices import OnNotice
from pacesetter._outage import OnOutage
from pacesetter._reports import Scalar, Value, capture, check_name

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

CLOSE_SECONDS = 10.0


class Session:
    """Walks through windows of sealed values, and sends reports in the background.

    Within a window `lr()` is a list access: no network, no lock. The next window is fetched by a
    daemon thread before it is needed. Past the last sealed value the session waits for the server
    for at most `max_wait` seconds, keeping reports meanwhile; then it raises. With a policy for
    outages other than `wait`, it goes on for a while by itself.

    A session whose controllers react immediately (it has a `max_lookahead`) is not fetched ahead:
    reports and the request for the next steps travel in one exchange, when they are needed.

    Sessions come from `Client.session()` and `Client.create_session()`. A session belongs to one
    training loop; only `report()` may be called from other threads too.
    """

    def __init__(
        self, core: SessionCore, reopen: Callable[..., Session], look: Look | None = None
    ) -> None:
        self._core = core
        self._prefetcher = core.prefetcher
        self._reopen = reopen
        self._look = look
        self._subscriptions: list[Subscription] = []
        self._on_drop = weakref.finalize(self, core.prefetcher.stop)
        self._on_drop.atexit = False

    @property
    def info(self) -> SessionInfo:
        """The session as it was when it, or its present attempt, was opened."""
        return self._core.info

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self.info.name

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.info.attempt

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its outputs, for instance `("lr",)` or `("body.lr", "head.lr")`."""
        return self.info.series

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of its groups, in order; empty when it has none."""
        return self.info.groups

    @property
    def horizon(self) -> int:
        """The first step not sealed yet, as of the last exchange: changes apply from there on."""
        return self._core.sync.state.horizon

    @property
    def revision(self) -> int:
        """Counts the changes made to the session, as of the last exchange."""
        return self._core.sync.state.revision

    @property
    def max_lookahead(self) -> int | None:
        """The most steps sealed ahead as of the last exchange; None without a limit."""
        return self._core.sync.state.max_lookahead

    def lr(self, step: int, group: str | None = None) -> float:
        """Return the learning rate of a step.

        Args:
            step: 0-based index of the optimizer update that uses the value.
            group: The group's name, in a session that has groups.

        Raises:
            GroupError: There is no such group, or the session has groups and none was named.
            ServerUnavailableError: The value is not here and the server was away for `max_wait`.
            InvalidAnswerError: The server's window broke the contract or the `lr_bounds`.
            ResumeError: The step was trained before this session was opened, see `Client.session`.
            SessionFinishedError: A controller has ended the session; training must stop.
            HistoryLostError: The server's database is older than what was handed out here.
            APIError: The server refused, for instance with `stale_attempt`.
        """
        start, stop, rates = self._core.at_once
        if start <= step < stop and group is None:
            return rates[step - start]
        window = self._core.window(step)
        column = window.columns.get("lr" if group is None else f"{group}.lr")
        if column is None:
            raise self._no_group(group)
        return column[step - window.start]

    def values(self, step: int) -> dict[str, float]:
        """Return every series' value at a step, by series name; raises what `lr()` raises."""
        return self._core.window(step).values(step)

    def report(self, step: int, /, **metrics: Scalar) -> None:
        """Tell the server what was measured at a step, without waiting.

        Reports are delivered in the background when 1,000 have gathered, after a second, or with
        the next window. Repeating a report changes nothing. While the server is away, reports are
        kept; of more than 20,000, the older half is thinned out. A metric whose name the server
        refuses is left out, which is logged once per name.

        Args:
            step: The step that it was measured at.
            **metrics: Numbers, NaN and infinities included, or tensors of one element. One on an
                accelerator is copied there now and read later, so that this never waits for it.

        Raises:
            TypeError: A metric is not a number.
            ValueError: The name of a metric is not text that can be sent.
            ClosedError: The session was closed.
        """
        for name in metrics:
            if not name.isascii():
                check_name(name)
        for value in metrics.values():
            if value.__class__ is not float:
                metrics = {name: capture(value) for name, value in metrics.items()}
                break
        if not metrics:
            return
        prefetcher = self._prefetcher
        entries = prefetcher.sync.reports.entries
        entries.append((operator.index(step), metrics))  # type: ignore[arg-type] # floats, or just captured
        if len(entries) >= prefetcher.call_at:
            prefetcher.call()
        if self._subscriptions:
            self._tell(operator.index(step), metrics)  # type: ignore[arg-type] # as above

    def on_report(self, listener: OnReport, *, every: int = 1) -> OnReport:
        """Call a function with each report, for instance to log it to a tracker.

        `listener(step, {"loss": 0.3, "lr": 0.1})` gets the metrics as floats, together with the
        values of the session's series at that step, by series name, as long as the step is in the
        present window or in the one before. It is called in the thread that reports, once the
        report is accepted; what it raises comes out of `report()`. With `RemoteLR.step(metric)`
        that is the trainer's thread. Under torch.distributed, the listeners of the ranks whose
        metrics are reported are called. Listeners stay in this process. `pacesetter.trackers` has
        some.

        Args:
            listener: The function to call.
            every: Steps between two values of a metric that the listener is told. Telling it a
                metric on an accelerator makes the training wait: with 50, for instance, once in 50
                steps.

        Raises:
            ValueError: `every` is less than 1.
        """
        self._subscriptions.append(Subscription(listener, every))
        return listener

    def on_notice(self, listener: OnNotice) -> OnNotice:
        """Call a function with each notice of the server; as a decorator too.

        It is called in the trainer's thread, when the trainer reaches the window that holds the
        notice's step and before it gets that window's values, once for each notice. What it raises
        comes out of the call that asked for the step, which may be repeated. After a `restart`, the
        notices of repeated steps are delivered again. Without any listener, notices are logged: as
        warnings, those of something that is wrong (`roll_back`, `diverged`, `rate_deviated`,
        `metric_never_seen`, `metric_stopped`, `rank_silent`, `relative_threshold`, `left_family`)
        or that changes what is planned (`plan_over`), others as information. Listeners stay in this
        process: a pickled session logs.
        """
        self._core.board.listen(listener)
        return listener

    def on_outage(self, listener: OnOutage) -> OnOutage:
        """Call a function when the training goes on without the server; as a decorator too.

        It is called in the trainer's thread with each `Outage`: when that begins, when it is over,
        and when the policy allows no further step. What it raises comes out of the call that asked
        for the step. It is logged in any case.

        Raises:
            ValueError: The policy is to wait, so there would be no news.
        """
        if self._core.fallback is None:
            raise ValueError(
                "this session waits for the server in an outage: open it with on_outage='hold' or "
                "'forecast' to be told when it goes on without"
            )
        self._core.fallback.listen(listener)
        return listener

    def applied(self, step: int, values: Mapping[str, Scalar]) -> None:
        """Tell the server, with the next exchange, what the optimizer really held at a step.

        It compares that with what is sealed. `RemoteLR` does this; other loops may.

        Args:
            step: A step that has been sealed.
            values: The values that this process applies, by series, for instance `{"lr": 0.1}`.
        """
        captured: dict[str, Value] = {name: capture(value) for name, value in values.items()}
        self._core.sync.applied = (operator.index(step), captured)

    def resize(self, batch_size: int) -> None:
        """Tell the server how many samples are in one step from now on, and wait for its answer.

        The session's `batch_scaling` decides what a change does: nothing, a scaling of the rate by
        the ratio or its square root from the horizon on, or a refusal. Later restarts state the
        size too.

        Args:
            batch_size: Samples in one step of all ranks together, gradient accumulation included.

        Raises:
            ConflictError: The session refuses the size, or its limits refuse the rate that follows.
            ServerUnavailableError: The server was away for `max_wait` seconds.
        """
        self._prefetcher.resize(operator.index(batch_size))

    def restart(
        self,
        step: int,
        *,
        key: str | None = None,
        known: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Go back to a step, as after loading a checkpoint: a new attempt of the job begins.

        Schedules and controllers are as they were when the step was handed out. Earlier attempts
        can seal and report no more. Reports of that and later steps that were not yet delivered are
        dropped, which is logged.

        A session that was opened by a bootstrap file goes back immediately; the attempt is opened
        when the server first answers, unless another job has taken over since.

        Schedulers of the session go back with it, and those that are made later begin there. Where
        ranks share it, call `RemoteLR.restart` on all of them instead.

        Args:
            step: The first step that is trained again.
            key: What all ranks of the restart share, so that they open one attempt between them. By
                default derived from what the launcher says of the job and its starts, if there is a
                launcher, else random. Sessions that one process has opened for one training share
                it.
            known: The attempt that the checkpoint is of, where it is newer than the bootstrap file.
            batch_size: Samples in one step from now on, see `resize`; by default as last stated.

        Raises:
            StaleAttemptError: A later attempt has taken over from the one of that key.
            ConflictError: The key opened an attempt at another step, or the batch size is refused.
            InvalidRequestError: No job has trained up to that step.
            ServerUnavailableError: The server was away for `max_wait` seconds.
        """
        self._core.restart(WayBack(step, key, known, batch_size))

    def finish(self, outcome: str = "completed", *, reason: str = "") -> None:
        """Deliver all reports, and tell the server that this training is over.

        `close` does so by itself once the last step of the plan was trained, as the integrations do
        at the end of a training. Training on, or another attempt, makes the session active again.

        Args:
            outcome: `"completed"`, or `"failed"` for a training that will not be resumed.
            reason: Why it ended, in a line; for the record.

        Raises:
            StaleAttemptError: A later attempt has taken over.
            ConflictError: The session is archived.
            ServerUnavailableError: The server was away for `max_wait` seconds.
        """
        body: dict[str, Any] = {"outcome": outcome, "reason": reason}
        stands = self._core.walkers.position
        self._prefetcher.finish(body if stands is None else {**body, "step": stands})

    def flush(self) -> None:
        """Deliver all reports now.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds.
            APIError: The server refused.
        """
        self._prefetcher.flush()

    def deliver(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Deliver all reports, trying for at most `seconds`; log what is left, and raise nothing.

        This is for the end of a training, which is over whether or not the server is reachable.
        What is left is delivered in the background, as long as the session is open.

        Args:
            seconds: How long to try; 0 tries once, as a time does that has passed.

        Returns:
            Whether all were delivered.
        """
        return self._prefetcher.deliver(seconds)

    def close(self) -> None:
        """Deliver what is left, for at most ten seconds, and end the thread.

        If the last step of the plan was trained, the server is told that the training is over. It
        is not while an exception is being handled, as where one leaves a `with` block, or in a
        `finally`: what was interrupted may be resumed.
        """
        self._say_if_over()
        self._on_drop.detach()
        self._prefetcher.stop(CLOSE_SECONDS)
        self._prefetcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session {self.name!r} attempt {self.attempt}, sealed below {self.horizon}>"

    def _repr_html_(self) -> str:
        return shown(lambda: session_card(self.info, self._look), self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        return self  # a handle: the copy of a trainer follows the same session

    def __reduce__(self) -> tuple[Callable[..., Session], tuple[Any, ...]]:
        return self._reopen, self._core.depart()

    def _say_if_over(self) -> None:
        if self._core.is_over and sys.exc_info()[0] is None and not self._prefetcher.closed:
            self._core.end(when_over=True)

    def _tell(self, step: int, metrics: Mapping[str, Value]) -> None:
        values = self._core.at_hand(step)
        for subscription in self._subscriptions:
            subscription.tell(step, metrics, values)

    def _no_group(self, group: str | None) -> GroupError:
        names = ", ".join(self.groups)
        if not names:
            return GroupError(f"session {self.name} has no groups: leave out group={group!r}")
        given = "no group was named" if group is None else f"it has no group {group!r}"
        return GroupError(f"session {self.name} has the groups {names} and {given}: name one")


def core_of(session: Session) -> SessionCore:
    """Return the core of a session, for integrations; they hold the session, whose end stops it."""
    return session._core  # noqa: SLF001
