"""A session as a trainer sees it: the value of any step, from memory, and a place for reports."""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pacesetter._attempts import Claim, new_key
from pacesetter._errors import GroupError
from pacesetter._feed import Feed
from pacesetter._info import SessionInfo
from pacesetter._listeners import OnReport, Subscription
from pacesetter._notices import Board, OnNotice
from pacesetter._outage import Bridge, OnOutage
from pacesetter._pace import Pace
from pacesetter._reports import Scalar, Value, capture
from pacesetter._window import Answer, Window

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

CLOSE_SECONDS = 10.0


class Session:
    """Walks through windows of sealed values, and sends reports in the background.

    Within a window `lr()` is a list access: no network, no lock. The next window is fetched by a
    daemon thread before it is needed. Past the last sealed value the session waits for the server
    for at most `max_wait` seconds, keeping reports meanwhile; then it raises. With another policy
    for outages than `wait` it goes on for a while by itself.

    A session whose controllers react at once (it has a `max_lookahead`) is not fetched ahead:
    reports and the wish for the next steps travel in one exchange, when they are needed.

    Sessions come from `Client.session()` and `Client.create_session()`. One belongs to one training
    loop; only `report()` may be called from other threads too.
    """

    def __init__(
        self,
        feed: Feed,
        reopen: Callable[[SessionInfo], Session],
        on_notice: OnNotice | None = None,
        *,
        bridge: Bridge | None = None,
    ) -> None:
        self._feed = feed
        self._bridge = bridge
        self._reopen = reopen
        self._board = Board(on_notice)
        self._subscriptions: list[Subscription] = []
        self._pace = Pace()
        self._restarts = 0
        self._forget()
        self._on_drop = weakref.finalize(self, feed.stop)
        self._on_drop.atexit = False

    @property
    def info(self) -> SessionInfo:
        """The session as it was when it, or its present attempt, was opened."""
        return self._feed.info

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self.info.name

    @property
    def attempt(self) -> int:
        """The life of the job that this is, counted from 1."""
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
        return self._feed.wire.horizon

    @property
    def revision(self) -> int:
        """Counts the changes made to the session, as of the last exchange."""
        return self._feed.wire.revision

    @property
    def max_lookahead(self) -> int | None:
        """Most steps sealed ahead, None without a limit, as of the last exchange."""
        return self._feed.wire.max_lookahead

    @property
    def longest_wait(self) -> float:
        """Seconds for which a call may wait for the server at most."""
        return self._feed.max_wait

    @property
    def goes_on_in_outages(self) -> bool:
        """Whether the training may go on for a while without the server."""
        return self._bridge is not None

    @property
    def met(self) -> bool:
        """Whether the server has answered since; not yet, if the session was opened by a file."""
        return self._feed.wire.met

    @property
    def restarts(self) -> int:
        """How often it has gone back to a step, in this process."""
        return self._restarts

    def lr(self, step: int, group: str | None = None) -> float:
        """The learning rate of a step.

        Args:
            step: 0-based index of the optimizer update that uses the value.
            group: the group's name, in a session that has groups.

        Raises:
            GroupError: there is no such group, or the session has groups and none was named.
            ServerUnavailableError: the value is not here and the server was away for `max_wait`.
            InvalidAnswerError: the server's window broke the contract or the `lr_bounds`.
            SessionFinishedError: a controller has ended the session; training is to stop.
            APIError: the server refused, for instance with `stale_attempt`.
        """
        index = step - self._start
        if 0 <= index < self._mark and group is None and self._lrs:
            return self._lrs[index]
        window = self.window(step)
        column = window.columns.get("lr" if group is None else f"{group}.lr")
        if column is None:
            raise self._no_group(group)
        return column[step - window.start]

    def values(self, step: int) -> dict[str, float]:
        """Every series' value at a step, by series name; raises what `lr()` raises."""
        window = self.window(step)
        index = step - window.start
        return {name: column[index] for name, column in window.columns.items()}

    def window(self, step: int) -> Window:
        """The window that holds a step: for integrations, which walk its columns themselves.

        Call it when the index reaches the window's `mark`, which is raised then.
        """
        window = self._window
        if window is None or step not in window:
            return self._turn(operator.index(step))
        if step - window.start >= window.mark:
            self._pace.arrive(step)
            self._order_next(window)
        return window

    def report(self, step: int, /, **metrics: Scalar) -> None:
        """Tell the server what was measured at a step; returns at once.

        Delivered in the background when 1,000 have gathered, after a second, or with the next
        window. Repeating a report changes nothing. While the server is away they are kept; of more
        than 20,000 the older half is thinned out. A metric whose name the server refuses is left
        out, which is logged once for each name.

        Args:
            step: the step that it was measured at.
            **metrics: numbers, NaN and infinities included, or tensors of one element. One on an
                accelerator is copied there now and read later, so that this never waits for it.

        Raises:
            TypeError: a metric is no number.
            ClosedError: the session was closed.
        """
        for value in metrics.values():
            if value.__class__ is not float:
                metrics = {name: capture(value) for name, value in metrics.items()}
                break
        if not metrics:
            return
        feed = self._feed
        entries = feed.wire.reports.entries
        entries.append((operator.index(step), metrics))  # type: ignore[arg-type] # floats, or just captured
        if len(entries) >= feed.call_at:
            feed.call()
        if self._subscriptions:
            self._tell(operator.index(step), metrics)  # type: ignore[arg-type] # as above

    def on_report(self, listener: OnReport, *, every: int = 1) -> OnReport:
        """Have a function called with each report, for instance to log it to a tracker.

        `listener(step, {"loss": 0.3, "lr": 0.1})` gets the metrics as floats, and beside them the
        values of the session's series at that step, by series name, as long as the step is in the
        present window or in the one before. It is called in the thread that reports, once the
        report is taken; what it raises comes out of `report()`. With `RemoteLR.step(metric)` that
        is the trainer's thread; under torch.distributed the listeners of the ranks whose metrics
        are reported are called. Listeners stay in this process. `pacesetter.trackers` has some.

        Args:
            listener: what to call.
            every: steps between two values of a metric that it is told. A metric on an accelerator
                is waited for when it is told: 50, say, makes the training wait once in 50 steps.

        Raises:
            ValueError: `every` is less than 1.
        """
        self._subscriptions.append(Subscription(listener, every))
        return listener

    def on_notice(self, listener: OnNotice) -> OnNotice:
        """Have a function called with each notice of the server; as a decorator too.

        It is called in the trainer's thread, when the trainer reaches the window that holds the
        notice's step and before it gets that window's values, once for each notice. What it raises
        comes out of the call that asked for the step, which may be repeated. Without any listener
        notices are logged: `roll_back`, `diverged` and `rate_deviated` as warnings, others as
        information. Listeners stay in this process: a pickled session logs.
        """
        self._board.listen(listener)
        return listener

    def on_outage(self, listener: OnOutage) -> OnOutage:
        """Have a function called when the training goes on without the server; as a decorator too.

        It is called in the trainer's thread with each `Outage`: when that begins, when it is over,
        and when the policy allows no further step. What it raises comes out of the call that asked
        for the step. It is logged in any case.

        Raises:
            ValueError: the policy is to wait, so there would be no news.
        """
        if self._bridge is None:
            raise ValueError(
                "this session waits for the server in an outage: open it with on_outage='hold' or "
                "'forecast' to be told when it goes on without"
            )
        self._bridge.listen(listener)
        return listener

    def applied(self, step: int, values: Mapping[str, Scalar]) -> None:
        """Tell the server, with the next exchange, what the optimizer really held at a step.

        It compares that with what is sealed. `RemoteLR` does this; other loops may.

        Args:
            step: which has been sealed.
            values: by series, for instance `{"lr": 0.1}`; those that this process applies.
        """
        captured: dict[str, Value] = {name: capture(value) for name, value in values.items()}
        self._feed.wire.applied = (operator.index(step), captured)

    def resize(self, batch_size: int) -> None:
        """Tell the server how many samples are in one step from now on; waits for its answer.

        What a change of it does is the session's `batch_scaling`: nothing, or a scale of the rate
        by the ratio or its root, from the horizon on, or a refusal. Later restarts say it too.

        Args:
            batch_size: samples in one step of all ranks together, gradient accumulation included.

        Raises:
            ConflictError: the session refuses it, or its limits the rate that follows.
            ServerUnavailableError: the server was away for `max_wait` seconds.
        """
        self._feed.resize(operator.index(batch_size))

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
        can seal and report no more. Reports of that and later steps that were not delivered yet are
        dropped, which is logged.

        A session that was opened by a bootstrap file goes back at once; the attempt is opened when
        the server first answers, unless somebody has taken over since.

        Args:
            step: the first step that is trained again.
            key: what all ranks of the restart share, so that they open one attempt between them.
                By default made of torchelastic's run and restart count where there are any, else
                random.
            known: the attempt that the checkpoint is of, where it is newer than the file.
            batch_size: samples in one step from now on, see `resize`; as said last, if not given.

        Raises:
            StaleAttemptError: a later attempt has taken over from the one of that key.
            ConflictError: the key opened an attempt at another step, or the batch size is refused.
            InvalidRequestError: nobody has trained up to that step.
            ServerUnavailableError: the server was away for `max_wait` seconds.
        """
        step, key = operator.index(step), key or new_key(self._restarts)
        if batch_size is not None:
            self._feed.wire.batch_size = operator.index(batch_size)
        claim = Claim(step, key, max(known or 0, self.attempt))
        if self._bridge is not None and not self.met and self._feed.claim(claim):
            self._restarts += 1
            self._forget()
            self._bridge.go_back(step)
            return
        self._feed.restart(step, key)
        self._go_on_at()
        if self._bridge is not None:
            self._bridge.prime(step)

    def follow(self, info: SessionInfo, step: int) -> None:
        """Go on at a step in an attempt that another rank has opened: for integrations."""
        self._feed.follow(info, step)
        self._go_on_at()

    def _go_on_at(self) -> None:
        self._restarts += 1
        self._forget()
        if self._bridge is not None:
            self._bridge.forget()

    def _forget(self) -> None:
        self._window: Window | None = None
        self._window_before: Window | None = None
        self._lrs: list[float] = []  # of an ungrouped session: the column that `lr(step)` reads
        self._start = 0
        self._mark = 0

    def flush(self) -> None:
        """Deliver all reports now.

        Raises:
            ServerUnavailableError: the server was away for `max_wait` seconds.
            APIError: the server refused.
        """
        self._feed.flush()

    def deliver(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Deliver all reports, trying for so long at most; log what is left, and raise nothing.

        For the end of a training, which is done whether or not the server is there to hear of it.
        What is left is delivered in the background, as long as the session is open.

        Args:
            seconds: for which to try; 0 tries once.

        Returns:
            Whether all were delivered.
        """
        return self._feed.deliver(seconds)

    def close(self) -> None:
        """Deliver what is left, for at most ten seconds, and end the thread."""
        self._on_drop.detach()
        self._feed.stop(CLOSE_SECONDS)
        self._feed.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session {self.name!r} attempt {self.attempt}, sealed below {self.horizon}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        return self  # a handle: the copy of a trainer follows the same session

    def __reduce__(self) -> tuple[Callable[[SessionInfo], Session], tuple[SessionInfo]]:
        return self._reopen, (self.info,)

    def _turn(self, step: int) -> Window:
        """Go over to the window that holds `step`, fetching it when it is not here yet."""
        return self.adopt(self.fetch(step))

    def adopt(self, window: Window, *, leads: bool = True) -> Window:
        """Take up a window, telling its notices: for integrations.

        Args:
            window: that `fetch` gave, here or in another rank.
            leads: this is the rank that fetches windows ahead, and logs what nobody listens to.
        """
        window.mark = self._first_mark(window) if leads else len(window)
        self._window_before, self._window = self._window, window
        self._start = window.start
        self._mark = window.mark
        self._lrs = window.columns.get("lr", [])
        if window.mark == 0:
            self._order_next(window)
        self._board.tell(window.notices, log=leads)
        return window

    def _tell(self, step: int, metrics: Mapping[str, Value]) -> None:
        values = self._at_hand(step)
        for subscription in self._subscriptions:
            subscription.tell(step, metrics, values)

    def _at_hand(self, step: int) -> dict[str, float]:
        """The values of a step, if no exchange is needed to know them."""
        for window in (self._window, self._window_before):
            if window is not None and step in window:
                index = step - window.start
                return {name: column[index] for name, column in window.columns.items()}
        return {}

    def walks(self, window: Window) -> bool:
        """Whether this is the window that the session is in."""
        return self._window is window

    def note(self, answer: Answer) -> None:
        """Know what another rank's exchange has brought: for integrations."""
        self._feed.wire.note(answer)

    def fetch(self, step: int) -> Window:
        """Get the window that holds `step`, and leave the session where it is: for integrations."""
        if step < 0:
            raise ValueError(f"step {step} is negative: steps count from 0")
        self._pace.arrive(step)
        source = self._feed if self._bridge is None else self._bridge
        window = source.fetch(step, self._count())
        self._pace.depart()
        return window

    def _count(self) -> int:
        limit = self.info.max_window
        lookahead = self._feed.wire.max_lookahead
        return self._pace.count(limit if lookahead is None else max(1, min(limit, lookahead)))

    def _first_mark(self, window: Window) -> int:
        if self._feed.wire.max_lookahead is not None or not window.sealed:
            return len(window)
        return self._pace.mark(len(window), self._feed.wire.fetch_seconds)

    def _order_next(self, window: Window) -> None:
        self._mark = window.mark = len(window)
        self._feed.order(window.stop, self._count())

    def _no_group(self, group: str | None) -> GroupError:
        names = ", ".join(self.groups)
        if not names:
            return GroupError(f"session {self.name} has no groups: leave out group={group!r}")
        given = "no group was named" if group is None else f"it has no group {group!r}"
        return GroupError(f"session {self.name} has the groups {names} and {given}: name one")


def checked_bounds(bounds: tuple[float, float] | None) -> tuple[float, float]:
    """The range that learning rates must lie in; without any, all that are finite and >= 0."""
    if bounds is None:
        return (0.0, math.inf)
    low, high = bounds
    if not 0 <= low <= high:
        raise ValueError(f"lr_bounds={bounds}: give (low, high) with 0 <= low <= high")
    return (float(low), float(high))
