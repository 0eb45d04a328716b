"""Where a scheduler stands in its session's windows, and what it has written to its optimizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch.optim import Optimizer

from pacesetter._errors import GroupError, PacesetterError
from pacesetter._groups import ParamGroup
from pacesetter._session import Session, core_of
from pacesetter._torch.hooks import Hooks
from pacesetter._torch.relay import SessionRelay
from pacesetter._torch.torch_names import TorchNames
from pacesetter._torch.writing import Writing
from pacesetter._window import Window

logger = logging.getLogger("pacesetter")


class Walking(TorchNames):
    """The part of a `RemoteLR` that walks from window to window, and writes their values.

    The position is `_start + _index`; at `_mark` the window must be asked for again. What
    `RemoteLR.step` reads of `_writing` is kept here too, since every look-up there costs time.
    """

    optimizer: Optimizer
    session: Session
    _relay: SessionRelay
    _writing: Writing
    _hooks: Hooks
    _verify: bool
    _begun: bool  # whether it is settled how this job relates to the session

    _start: int
    _index: int
    _mark: int
    _window: Window | None
    _shared: Sequence[float] | None
    _rows: list[tuple[float, ...]] | None
    _held: list[ParamGroup] | None
    _count: int
    _last: ParamGroup | None
    _look: int  # the next step at which to check the optimizer
    _since: int  # where this scheduler began, or was moved to
    _owes = False  # whether the values of its step never came, since it was moved to it
    _asked_in = 0  # how often the session had gone back when it last gave values

    # -- the position ----------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """The current step, by torch's name for it."""
        return self._start + self._index

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        # As with torch: the position moves now, the optimizer follows at the next step().
        self._forget(step)

    def _forget(self, step: int) -> None:
        """Move to a step without knowing its values: the next step looks them up."""
        self._start, self._index, self._mark = step, 0, 0
        self._since, self._look, self._count = step, step + 1, 0
        self._owes = False
        self._window = self._shared = self._rows = self._held = self._last = None
        self._writing.forget()

    def _seek(self, step: int, fault: PacesetterError | None) -> None:
        """Go to a step and write its values; on an error nothing has changed."""
        window = self._ask(step, fault)
        if step >= self._look:
            self._look = self._since + 2 * (step - self._since)
        self._write(window, step)

    def _ask(self, step: int, fault: PacesetterError | None, *, walks: bool = True) -> Window:
        """Return the window of a step; an error of this rank is raised on all ranks.

        Args:
            step: The step wanted.
            fault: What is wrong in this rank.
            walks: Whether the scheduler gets there by training, and not by being moved.
        """
        groups = self.optimizer.param_groups
        window = self._relay.window(
            step,
            at=self.last_epoch,
            held=self._writing.held(groups, self._index) if walks and fault is None else {},
            fault=fault,
            meets=walks and step >= self._look,
            trains=self._begun,
        )
        self._asked_in = core_of(self.session).restarts
        return window

    def _write(self, window: Window, step: int) -> None:
        """Move to a step of a window, and write its values."""
        try:
            self._enter(window, step)
        except BaseException:  # Ctrl-C may come at any point: what was begun is done
            self._enter(window, step)
            raise

    def _enter(self, window: Window, step: int) -> None:
        """Find out how to write the optimizer, once for a whole window, and write it."""
        groups, writing = self.optimizer.param_groups, self._writing
        writing.enter(window, groups)
        self._shared, self._rows = writing.shared, writing.rows
        self._held, self._count = writing.groups, writing.count
        self._last = groups[-1]
        self._window, self._start, self._index = window, window.start, step - window.start
        self._mark = min(window.mark, self._look - window.start)
        writing.write(groups, self._index)

    def _look_soon(self) -> None:
        """Make the next step settle the beginning, if none has."""
        if not self._begun:
            self._mark = 0

    # -- the optimizer ---------------------------------------------------------------------------

    @property
    def has_more_groups(self) -> bool:
        """Whether param groups were added that were not seen yet; the optimizer's hooks ask."""
        return len(self.optimizer.param_groups) > len(self._writing.names)

    def write_again(self) -> None:
        """Write the present step's values; the optimizer's hooks call it, as after a load.

        Nothing is asked of the server or of other ranks.

        Raises:
            GroupError: What was loaded cannot be written.
        """
        window = self._window
        if window is None or self._held is None:
            return  # the next step writes
        self._take_in()
        if (fault := self._unfit()) is not None:
            raise fault
        self._write(window, self.last_epoch)
        self._look_soon()

    def _take_in(self) -> None:
        """Take in what was added to the optimizer, or loaded into it.

        If other param groups have moved, which is refused, none is taken in.
        """
        groups = self.optimizer.param_groups
        if self._writing.moved(groups) is not None:
            return
        said = []
        if more := self.has_more_groups:
            said += self._writing.join(groups)
        if more or groups is not self._held:
            said += self._writing.unshare(groups)
        for each in said:
            self._say(logging.WARNING, each)
        if more:
            self._take_bases()
            if not self._writing.missing:
                self._hooks.await_no_more()

    def _take_bases(self, *, anew: bool = False) -> None:
        """Set `base_lrs` and each param group's `initial_lr`; `anew` overwrites those."""
        groups = self.optimizer.param_groups
        self._writing.take_bases(groups, self._last_lr, anew=anew)
        self.base_lrs = [float(group["initial_lr"]) for group in groups]

    def _unfit(self) -> GroupError | None:
        """Return why the optimizer cannot be written."""
        return self._writing.unfit(self.optimizer.param_groups)

    def _mismatch(self) -> PacesetterError | None:
        """Return what something else has written to the optimizer, if that must be verified."""
        if not self._verify:
            return None
        return self._writing.mismatch(self.optimizer.param_groups, self._index)

    # -- what is read and said -------------------------------------------------------------------

    @property
    def _last_lr(self) -> list[float]:  # type: ignore[override]
        return self._rates(self._here())

    def _known_rates(self) -> list[float]:
        """Return the learning rates of the step without asking for them."""
        return self._rates(self._window)

    def _rates(self, window: Window | None) -> list[float]:
        """Return a window's rates at the step; without a window, those that the optimizer holds."""
        groups = self.optimizer.param_groups
        if window is None:
            return [float(group["lr"]) for group in groups]
        return self._writing.rates(groups, window.columns, self._index)

    def _here(self) -> Window | None:
        """Return the window of the present step; None where ranks would have to meet for it."""
        if self._window is None:
            step = self.last_epoch
            self._window = window = self._relay.look(step)
            if window is not None:
                self._start, self._index = window.start, step - window.start
        return self._window

    def _say(self, level: int, text: str) -> None:
        """Log a message about the session, on one rank."""
        if self._relay.leads:
            logger.log(level, "session %s: %s", self.session.name, text)
