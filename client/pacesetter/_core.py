"""The core of a session, which integrations drive; users hold a `Session`."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from pacesetter._attempts import Branch, Opener, Training
from pacesetter._claim import Claim
from pacesetter._errors import PacesetterError
from pacesetter._info import SessionInfo
from pacesetter._launch import launched
from pacesetter._notices import Board, OnNotice
from pacesetter._outage import OutageFallback
from pacesetter._pace import Pace
from pacesetter._prefetcher import Prefetcher
from pacesetter._walkers import Walker, Walkers
from pacesetter._window import Window

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class WayBack:
    """How a session goes back to a step; see `Session.restart`.

    Attributes:
        step: The first step that is trained again.
        key: What all ranks of the restart share; the session's own where none is given.
        known: The attempt that the checkpoint is of.
        batch_size: Samples in one step from now on.
        by: The scheduler that goes back, which is not told of it.
    """

    step: int
    key: str | None = None
    known: int | None = None
    batch_size: int | None = None
    by: Walker | None = None


class SessionCore:
    """Walks through the windows of one session, attempt by attempt.

    Args:
        prefetcher: Fetches the windows.
        on_notice: Told of notices.
        fallback: Supplies windows during outages, unless the policy is to wait.
        training: The training that it is opened for; by default a new one.
        opener: Settles what becomes of steps that were trained before.
        branch: The session that will continue this one, once its first step is known.
        announce: Announces once that a training begins at a step; None where another process
            announces it.

    Attributes:
        sync: Keeps what is known of the session, and what to tell the server about it.
        board: Hands notices over.
        walkers: The schedulers of the session.
        restarts: How often it has gone back to a step, in this process.
        sent_to: The step that `step=` or `restart` has sent it back to; None if neither has.
        at_once: The learning rates of an ungrouped session that may be read without `window`: the
            first step, the step after the last, and the rates from the first step on.
    """

    def __init__(
        self,
        prefetcher: Prefetcher,
        on_notice: OnNotice | None = None,
        *,
        fallback: OutageFallback | None = None,
        training: Training | None = None,
        opener: Opener | None = None,
        branch: Branch | None = None,
        announce: Callable[[SessionInfo, int], None] | None = None,
    ) -> None:
        self._announce = announce
        self.prefetcher = prefetcher
        self.sync = prefetcher.sync
        self.fallback = fallback
        self.board = Board(on_notice)
        self.walkers = Walkers()
        self.restarts = 0
        self.sent_to: int | None = None
        self._training = training or Training(launched())
        self._opener = opener
        self._branch = branch
        self._by_file = not self.met
        self._pace = Pace()
        self._forget()

    def _forget(self) -> None:
        self._window: Window | None = None
        self._window_before: Window | None = None
        self._first: int | None = None  # the first step that was asked for
        self._asked_last = False  # for the last step of the plan
        self.at_once: tuple[int, int, list[float]] = (0, 0, [])

    # -- what the session is ---------------------------------------------------------------------

    @property
    def info(self) -> SessionInfo:
        """The session as it was when it, or its present attempt, was opened."""
        return self.sync.state.info

    @property
    def met(self) -> bool:
        """Whether the server has answered yet; it has not where a file opened the session."""
        return self.sync.state.met

    @property
    def is_to_branch(self) -> bool:
        """Whether it will continue another session from a step that is not known yet.

        Until then its `info` is that session's.
        """
        return self._branch is not None

    @property
    def begins_at(self) -> int:
        """The step at which a training that has loaded nothing begins.

        It is the step that the session was sent back to, or else its own first one.
        """
        return self.info.first_step if self.sent_to is None else self.sent_to

    @property
    def lacks_checkpoint(self) -> bool:
        """Whether a training that counts from its start must say where it goes on, as in a fork."""
        return self.sent_to is None and self.info.start_step < self.info.first_step

    def depart(self) -> tuple[SessionInfo, Opener | None, Branch | None, int | None]:
        """Return what a copy in another process needs to be opened."""
        self._training.move_on()  # opening the session here again begins another
        return self.info, self._opener, self._branch, self.sent_to

    # -- windows ---------------------------------------------------------------------------------

    def window(self, step: int, *, trains: bool = True) -> Window:
        """Return the window that holds a step.

        The loop that walks its columns calls this when the index reaches the window's `mark`, which
        is raised then.

        Args:
            step: The step wanted.
            trains: Whether the step is trained now. It is not while the training has yet to say
                where it begins, for instance by loading a checkpoint; see `begin`.
        """
        if trains and (self._opener is not None or self._branch is not None):
            self.begin(operator.index(step))
        self._asked_last |= trains and step + 1 == self.info.plan_end
        window = self._window
        if window is None or step not in window:
            return self.adopt(self.fetch(operator.index(step)))
        if step - window.start >= window.mark:
            self._pace.arrive(step)
            self._order_next(window)
        return window

    def fetch(self, step: int) -> Window:
        """Return the window that holds a step, and leave the session where it is."""
        if step < 0:
            raise ValueError(f"step {step} is negative: steps count from 0")
        if self._branch is not None:
            return self.prefetcher.look(step)
        if self._first is None:
            self._first = step
        elif step != self._first:
            self._training.move_on()
        self._pace.arrive(step)
        source = self.prefetcher if self.fallback is None else self.fallback
        said = self.sync.progress
        try:
            window = source.fetch(step, self._count(step))
        except PacesetterError:
            self.sync.progress = said  # the trainer does not stand at a step that was refused
            raise
        self._pace.depart()
        return window

    def adopt(self, window: Window, *, leads: bool = True) -> Window:
        """Take up a window, and deliver its notices.

        Args:
            window: The window that `fetch` returned, here or in another rank.
            leads: Whether this is the rank that fetches windows ahead, and logs the notices that no
                listener takes.
        """
        window.mark = self._first_mark(window) if leads else len(window)
        self._window_before, self._window = self._window, window
        self._offer(window)
        if window.mark == 0:
            self._order_next(window)
        self.board.tell(window.notices, log=leads)
        return window

    def walks(self, window: Window) -> bool:
        """Return whether this is the window that the session is in."""
        return self._window is window

    def at_hand(self, step: int) -> dict[str, float]:
        """Return the values of a step, if no exchange is needed to know them."""
        for window in (self._window, self._window_before):
            if window is not None and step in window:
                return window.values(step)
        return {}

    def _first_mark(self, window: Window) -> int:
        if self.sync.state.max_lookahead is not None or not window.sealed:
            return len(window)
        return self._pace.mark(len(window), self.sync.fetch_seconds)

    def _offer(self, window: Window) -> None:
        """Let `Session.lr` read the rates of a window below its mark."""
        rates, end = window.columns.get("lr", []), self.info.plan_end
        stop = window.start + min(window.mark, len(rates))
        if end is not None and window.start < end:
            stop = min(stop, end - 1)  # the training of the last step must be noticed
        self.at_once = (window.start, stop, rates)

    def _order_next(self, window: Window) -> None:
        window.mark = len(window)
        self._offer(window)
        count = self._count(window.stop)
        if self.info.within_plan(window.start) == 0 or self.info.within_plan(window.stop) > 0:
            self.prefetcher.order(window.stop, count)

    def _count(self, start: int) -> int:
        """Return how many steps the window from `start` on should hold."""
        limit, lookahead = self.info.max_window, self.sync.state.max_lookahead
        self.sync.progress = (self._pace.step, self._pace.step_seconds)
        if lookahead is not None:
            limit = max(1, min(limit, lookahead))
        return self._pace.count(min(limit, self.info.within_plan(start) or limit))

    # -- its end ---------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether all steps of its plan were trained here: a scheduler is past the last one.

        Without a scheduler, it suffices that the values of the last step were asked for.
        """
        end, stands = self.info.plan_end, self.walkers.position
        if end is None or self._branch is not None or self._opener is not None:
            return False
        return self._asked_last if stands is None else stands >= end

    def end(self, *, when_over: bool = False) -> None:
        """Tell the server, from the leading rank, that the training has ended by itself.

        Nothing is raised, and no caller waits. Training on afterwards makes the session active
        again.

        Args:
            when_over: Whether the server must check that the plan is over: it may have been
                changed.
        """
        if self._branch is None and self._opener is None and self.sync.leads:
            stands = self.walkers.position
            where = {} if stands is None else {"step": stands}
            self.prefetcher.finish_soon({"when_over": when_over, **where})

    # -- attempts --------------------------------------------------------------------------------

    def begin(self, step: int, *, batch_size: int | None = None) -> None:
        """Settle what becomes of steps that were trained before.

        `window` calls it with the first step that is trained. Integrations that ask for values
        before they know where the training begins call it once they know.

        Args:
            step: The step that is trained now, without `restart`.
            batch_size: See `restart`.

        Raises:
            ResumeError: The step was trained before the session was opened, and not by this job.
            PacesetterError: What `restart` raises, where that means to begin again.
        """
        if self._branch is not None:
            raise self._branch.refusal(self.info.name)
        opener = self._opener
        if opener is None:
            return
        if self._by_file:
            # The bootstrap file may be out of date: the server decides.
            if opener.resume != "continue":
                self.prefetcher.claim(Claim(step, opener.key, self.info.attempt, opener))
            self._opener = None
            return
        if opener.begins_again(self.info, step):
            logger.log(
                logging.INFO if opener.restarts else logging.WARNING,  # which no user asked for
                "session %s begins again at step %d, in a new attempt: %s",
                self.info.name,
                step,
                opener.reason(self.info),
            )
            # What was measured at the step already belongs to this training, so it is kept.
            self._go_back(WayBack(step, opener.key, batch_size=batch_size), drops=False)
            self._seal_first(step)
        self._opener = None
        self._say_that_it_begins(step)

    def _say_that_it_begins(self, step: int) -> None:
        announce, self._announce = self._announce, None
        if announce is not None:
            announce(self.info, step)

    def _seal_first(self, step: int) -> None:
        """Seal the first step of an attempt, so that its measurements are accepted."""
        self._pace.arrive(step)
        self.prefetcher.open_at(step, self._count(step))
        self._pace.depart()

    def leave(self) -> None:
        """Note that another rank has settled what `begin` would."""
        self._opener = None

    def key_for_all(self, step: int) -> str:
        """Return a key by which this process goes back to a step for all ranks."""
        return self._training.key_for(step, self.info.attempt, alone=True)

    def restart(self, way: WayBack) -> None:
        """Go back to a step, at which schedulers that are made later begin too."""
        before = self.restarts
        try:
            self.go_back(way)
        finally:
            if self.restarts != before:  # also where a scheduler could not follow
                self.sent_to = operator.index(way.step)
                self.walkers.forget_gone()

    def go_back(self, way: WayBack) -> None:
        """Go back to a step, together with the other schedulers of the session."""
        self._go_back(replace(way, step=operator.index(way.step)))
        self.walkers.go_back(operator.index(way.step), by=way.by)

    def _go_back(self, way: WayBack, *, drops: bool = True) -> None:
        step, branch = way.step, self._branch
        key = way.key or self._training.key_for(step, self.info.attempt)
        size = None if way.batch_size is None else operator.index(way.batch_size)
        if branch is not None:
            info = self.prefetcher.branch_off(branch, step)
            self._branch = None
        else:
            if size is not None:
                self.sync.batch_size = size
            claim = Claim(step, key, max(way.known or 0, self.info.attempt))
            if self.fallback is not None and not self.met and self.prefetcher.claim(claim):
                self._go_on_at(step)
                self.fallback.go_back(step)
                return
            with self._training.asking(step, key):
                info = self.prefetcher.restart(step, key, drops=drops)
        self._training.went_back(step, info)
        self._go_on_at(step)
        if self.fallback is not None:
            self.fallback.forget()
            self.fallback.prime(step)
        if branch is not None and size is not None:
            self.prefetcher.resize(size)

    def follow(self, info: SessionInfo, step: int) -> None:
        """Go on at a step in an attempt that another rank has opened."""
        self.prefetcher.follow(info, step)
        self._go_on_at(step)
        if self.fallback is not None:
            self.fallback.forget()

    def _go_on_at(self, step: int) -> None:
        self.restarts += 1
        self._opener = None
        self._pace = Pace()  # the way back counts as no step's time
        self.board.go_back(step)
        self._forget()
        if self.met:
            self._say_that_it_begins(step)
