"""`RemoteLR`: a torch scheduler whose learning rates come from a Pacesetter session; and `lr_find`.

torch is imported here and in `pacesetter._torch`, which only this imports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pacesetter._client import Client
from pacesetter._errors import (
    GroupError,
    LRMismatchError,
    PacesetterError,
    StateMismatchError,
    UnsupportedSchedulerError,
)
from pacesetter._from_torch import convert
from pacesetter._groups import (
    Columns,
    ParamGroup,
    Put,
    groups_of,
    holds,
    is_tensor,
    match,
    read_back,
    refuse_unfit,
    writers,
)
from pacesetter._range_test import RangeTest
from pacesetter._reports import Scalar
from pacesetter._session import CLOSE_SECONDS, Session
from pacesetter._torch.lr_find import lr_find
from pacesetter._torch.ranks import are_many
from pacesetter._window import Window
from pacesetter.distributed import open_session, relay_for

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["RangeTest", "RemoteLR", "groups_of", "lr_find"]

logger = logging.getLogger("pacesetter")


class RemoteLR(LRScheduler):
    """Drives an optimizer's learning rates by a session, in place of a torch scheduler.

    ```python
    scheduler = RemoteLR(optimizer, client.session("vit-run-42"))
    for batch in loader:
        train(batch)
        optimizer.step()
        scheduler.step()
    ```

    `step(metric)` reports the metric for the step just done and then advances, so the loop written
    for `ReduceLROnPlateau` works unchanged. Momentum goes to `momentum` or `betas[0]`, weight decay
    to `weight_decay`, where the session drives them. The optimizer is never patched.

    Notices of the server come from `step()`, by the session's `on_notice`; let a listener remember
    what to do (roll back, save) and the loop do it, not move this scheduler meanwhile.

    Args:
        optimizer: what to drive.
        session: where the values come from.
        groups: the session group of each param group. By default by `group["name"]` where all param
            groups have one, else by order.
        metric: the name under which `step(value)` reports; by default the one that the session's
            controllers watch.
        verify: check at every window's edge that the optimizer holds what was written, and raise
            `LRMismatchError` if not: two writers mean that nobody knows the learning rate.
        mode: how ranks of a torch.distributed training share the session. `"auto"` has the first
            rank ask the server and broadcast each window, where there are several; `"broadcast"`
            insists on a process group; `"each"` has every rank ask by itself.
        group: the process group; by default the default one. One on the CPU (gloo) never makes the
            accelerator wait. Its timeout must be longer than the client's `max_wait`.
        reports: whose metrics count in a broadcast: the `"first"` rank's, the `"mean"` of all, or
            `"each"`, where the session expects that many `ranks`.
        batch_size: samples in one step, over all ranks together. It is told when the session
            begins, with each restart, and at the first step of a job that goes on without one; what
            a change does is the session's `batch_scaling`.
        attempt_key: what all ranks of a restart share, see `Session.restart`; every further restart
            of the same process adds its number. Usually nothing needs to be given.

    Under torch.distributed all ranks make one, step it, and save and load it at the same steps. An
    error of any rank is raised on all of them.

    Raises:
        GroupError: optimizer and session do not fit.
        RankMismatchError: from `step()`, when ranks are at different steps, or hold other values.
        StaleAttemptError: a restart of the job has taken over.
        ServerUnavailableError: from here and from `step()`, when values are missing and the server
            stays away; the position is unchanged, so `step()` may be called again.
        SessionFinishedError: from `step()`, when a controller has ended the session.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        session: Session,
        *,
        groups: Sequence[str] | None = None,
        metric: str | None = None,
        verify: bool = True,
        mode: str = "auto",
        group: ProcessGroup | None = None,
        reports: str = "first",
        batch_size: int | None = None,
        attempt_key: str | None = None,
    ) -> None:
        # LRScheduler.__init__ is left out on purpose: it patches optimizer.step.
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer: pass the optimizer")
        if not isinstance(session, Session):
            raise TypeError(
                f"{type(session).__name__} is not a Session: pass Client().session(name)"
            )
        self.optimizer = optimizer
        self.session = session
        self._relay = relay_for(session, mode=mode, group=group, reports=reports)
        self._metric = metric or _only(session.info.metrics)
        self._verify = verify
        self._attempt_key = attempt_key
        self._batch_size = batch_size
        self._told = batch_size is None
        self._restarts = 0
        self._lived = session.horizon > session.info.start_step
        self._begun = self._told and not self._lived
        self._extra_steps = 0
        self._forget(session.info.start_step)
        self._names, fault = self._matched(groups)
        if not self._told:
            self._begun = self._tell_batch_size(lambda: not self._lived)
        self._seek(self.last_epoch, fault or self._unfit())
        self._look_soon()
        for driven, base in zip(optimizer.param_groups, self._bases(), strict=True):
            driven.setdefault("initial_lr", base)
        self.base_lrs = [float(driven["initial_lr"]) for driven in optimizer.param_groups]

    @classmethod
    def from_torch(
        cls,
        scheduler: LRScheduler,
        session: str,
        *,
        client: Client | None = None,
        metric: str = "metric",
        **spec: Any,  # noqa: ANN401 - Client.create_session's keywords, typed there
    ) -> RemoteLR:
        """Create (or reopen) a session with the law of a torch scheduler, and drive by it.

        ```python
        scheduler = RemoteLR.from_torch(OneCycleLR(optimizer, 0.1, total_steps=1000), "run-1")
        ```

        The torch scheduler is not to be stepped any more. `CosineAnnealingLR` is held at its
        minimum after `T_max`, where torch's would rise again. torch's recursive forms and these
        closed ones agree to about 1e-12.

        Args:
            scheduler: one of StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR,
                PolynomialLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR,
                SWALR, ReduceLROnPlateau, or a SequentialLR or ChainedScheduler of them. One that
                has been stepped is continued where it is.
            session: the name of the session.
            client: the connection; by default a new `Client()`.
            metric: the name under which `step(value)` reports, for ReduceLROnPlateau.
            **spec: more of `Client.create_session`'s keywords, for instance `labels`.

        Raises:
            UnsupportedSchedulerError: its law cannot be written down as data.
            ConflictError: the name is taken by a session of another description.
        """
        optimizer = scheduler.optimizer
        described = convert(scheduler, optimizer.param_groups, metric)
        opened = open_session(client or Client(), session, **{**described, **spec})
        return cls(optimizer, opened)

    # The position is `_start + _index`; at `_mark` the window wants to be asked for again.
    _start: int
    _index: int
    _mark: int
    # How to write a step: one column for all, a row for each step, or puts for each param group.
    _shared: Sequence[float] | None
    _rows: list[tuple[float, ...]] | None
    _puts: list[list[tuple[Put, Sequence[float]]]]
    _window: Window | None
    _held: list[ParamGroup] | None  # the list that was written to

    # -- the step --------------------------------------------------------------------------------

    def step(self, metrics: Scalar | None = None) -> None:
        """Advance by one step and write its values to the optimizer.

        Args:
            metrics: reported first, for the step just done.
        """
        if metrics is not None:
            self._report(metrics)
        index = self._index + 1
        groups = self.optimizer.param_groups
        if index >= self._mark or groups is not self._held:  # load_state_dict replaces the list
            self._turn(index)
            return
        self._index = index
        if self._shared is not None:
            value = self._shared[index]
            for group in groups:
                group["lr"] = value
        elif self._rows is not None:
            for group, value in zip(groups, self._rows[index]):  # noqa: B905 - counted at the edge
                group["lr"] = value
        else:
            self._write(groups, index)

    def _write(self, groups: Sequence[ParamGroup], index: int) -> None:
        for group, puts in zip(groups, self._puts):  # noqa: B905 - counted at the edge
            for put, column in puts:
                put(group, column[index])

    def _report(self, value: Scalar) -> None:
        if self._metric is None:
            raise TypeError(
                f"step({value!r}): session {self.session.name} has no controller, or several "
                "metrics, so the value has no name: pass metric= to RemoteLR, or call step() "
                "(an epoch is not accepted)"
            )
        self.report(self.last_epoch, **{self._metric: value})

    def _turn(self, index: int) -> None:
        """Take a step at which the window says to stop and look around."""
        step = self._start + index
        window = self._window
        if not self._begun and (self._mark == 0 or window is None or step not in window):
            self._begin()  # here stand all ranks
        self._seek(step, self._unfit() or self._mismatch())

    def _begin(self) -> None:
        """See, at the first step, whether the server knows what this job is."""
        told = self._batch_size is None or self._tell_batch_size(lambda: True)
        if self._lived and self.last_epoch < self.session.info.horizon and self._speaks:
            logger.warning(
                "session %s has handed out its steps below %d before, and step %d is trained again "
                "in the same attempt: if the job begins again, call scheduler.restart(%d) or load "
                "a checkpoint first; if this is another training, take another name for it",
                self.session.name,
                self.session.info.horizon,
                self.last_epoch,
                self.last_epoch,
            )
        self._begun = told

    def _look_soon(self) -> None:
        """Have the next step begin, if none has."""
        if not self._begun:
            self._mark = 0

    @property
    def _speaks(self) -> bool:
        return self._relay is None or self._relay.ranks.leads

    def _seek(self, step: int, fault: PacesetterError | None) -> None:
        """Go to a step and write its values; on an error nothing has changed."""
        window = self._ask(step, fault)
        groups = self.optimizer.param_groups
        self._enter(window, groups)
        self._index = step - window.start
        self._write(groups, self._index)

    def _ask(self, step: int, fault: PacesetterError | None) -> Window:
        """Have the window of a step; what is wrong here is raised on all ranks."""
        held = self._held_rates() if fault is None else {}
        if self._relay is not None:
            rates = {name: float(rate) for name, rate in held.items()}
            return self._relay.window(step, at=self.last_epoch, held=rates, fault=fault)
        if fault is not None:
            raise fault
        if held:
            self.session.applied(self.last_epoch, held)
        return self.session.window(step)

    def _matched(
        self, groups: Sequence[str] | None
    ) -> tuple[tuple[str, ...], PacesetterError | None]:
        """Which session group drives each param group, or why none can."""
        ranks = self.session.info.ranks
        if self._relay is not None and self._relay.reports == "first" and ranks > 1:
            return (), GroupError(
                f"session {self.session.name} expects the metrics of {ranks} ranks, and here the "
                "first rank alone reports: pass reports='each', or create the session with ranks=1 "
                "and pass reports='mean'"
            )
        try:
            return match(self.optimizer.param_groups, self.session.groups, groups), None
        except GroupError as error:
            return (), error

    def _enter(self, window: Window, groups: list[ParamGroup]) -> None:
        """Find out how to write the optimizer, once for a whole window."""
        self._puts = [
            writers(group, name, window.columns)
            for group, name in zip(groups, self._names, strict=True)
        ]
        self._start = window.start
        self._mark = window.mark
        plain = all(len(puts) == 1 for puts in self._puts) and not any(
            is_tensor(group["lr"]) for group in groups
        )
        columns = [puts[0][1] for puts in self._puts]
        one = all(column is columns[0] for column in columns)
        self._shared = columns[0] if plain and one else None
        if not plain or self._shared is not None:
            self._rows = None
        elif window is not self._window or self._rows is None:
            self._rows = list(zip(*columns, strict=True))
        self._window = window
        self._held = groups

    def _unfit(self) -> GroupError | None:
        """Why the optimizer can not be written, if it has changed so."""
        try:
            refuse_unfit(self.optimizer.param_groups, self._names, self.session.series)
        except GroupError as error:
            return error
        return None

    def _mismatch(self) -> LRMismatchError | None:
        """What somebody else has written to the optimizer."""
        if not self._verify or not self._wrote_last():
            return None
        groups = self.optimizer.param_groups
        for at, (group, wanted) in enumerate(zip(groups, self._last_lr, strict=True)):
            if not holds(group, wanted):
                return LRMismatchError(
                    f"param group {at} has the learning rate {group['lr']}, and {wanted!r} was "
                    f"written for step {self.last_epoch}: something else writes it. Remove the "
                    "other scheduler, or change the rate on the server, or pass verify=False"
                )
        return None

    def _held_rates(self) -> dict[str, Any]:
        """What the optimizer really holds, by series, at a step whose values are the server's."""
        if not self._wrote_last() or self._window is None or not self._window.sealed:
            return {}
        return read_back(self.optimizer.param_groups, self._names, self._last_lr)

    def _wrote_last(self) -> bool:
        """Whether nothing was loaded into the optimizer since: that is its own affair."""
        return self._window is not None and self.optimizer.param_groups is self._held

    # -- what torch and its users read -----------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """The current step, by torch's name for it."""
        return self._start + self._index

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        # As with torch: the position moves at once, the optimizer follows at the next step().
        self._forget(step)

    @property
    def _step_count(self) -> int:
        return self.last_epoch + 1 + self._extra_steps

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        # Accelerate counts steps here that gradient accumulation has skipped.
        self._extra_steps = count - self.last_epoch - 1

    @property
    def _last_lr(self) -> list[float]:  # type: ignore[override]
        if self._window is None and self._relay is not None:
            # Reading must not make one rank wait for the others.
            return [float(group["lr"]) for group in self.optimizer.param_groups]
        columns = self._columns()
        return [_column(columns, name)[self._index] for name in self._names]

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rates of the current step, one for each param group."""
        return self._last_lr

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The same as `get_last_lr()`."""
        return self._last_lr

    def _initial_step(self) -> None:
        raise UnsupportedSchedulerError(
            "RemoteLR cannot be a part of SequentialLR: make the whole sequence a session, with "
            "RemoteLR.from_torch or the schedule kind `sequence`"
        )

    _update_lr = _initial_step  # type: ignore[assignment]

    @property
    def _is_accelerate_prepared(self) -> bool:
        # What Accelerate asks of a scheduler before it wraps it.
        if are_many(None):
            raise UnsupportedSchedulerError(
                "accelerator.prepare(RemoteLR(...)) would step it once for each process: take "
                "AcceleratedRemoteLR from pacesetter.accelerate"
            )
        return False

    # -- checkpoints and copies ------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position, as plain types that `torch.load(weights_only=True)` reads."""
        return {
            "session": self.session.name,
            "attempt": self.session.attempt,
            "revision": self.session.revision,
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a checkpoint's step and write that step's values to the optimizer.

        To go back to steps that were handed out before is a restart of the job, see `restart`: it
        opens an attempt, unless this scheduler is at that very step. The state of a torch scheduler
        is accepted too: its step is taken over.

        Raises:
            StateMismatchError: it belongs to another session, or has no step.
            StaleAttemptError: a later restart of the job has taken over.
            PacesetterError: the attempt could not be opened; on all ranks alike.
        """
        name = state_dict.get("session", self.session.name)
        step = state_dict.get("last_epoch")
        if name != self.session.name:
            raise StateMismatchError(
                f"the checkpoint belongs to session {name}, this is {self.session.name}: open that "
                'one, or set state["session"] to continue in this one'
            )
        if not isinstance(step, int) or step < 0:
            raise StateMismatchError(
                f"the checkpoint has last_epoch={step!r}: load a scheduler's state_dict"
            )
        attempt = state_dict.get("attempt", self.session.attempt)
        known = attempt if isinstance(attempt, int) else None
        self._go_back(step, None, lambda: self._is_restart(step, attempt), known)
        self._step_count = int(state_dict.get("_step_count", step + 1))

    def restart(self, step: int, *, key: str | None = None) -> None:
        """Train again from a step on, in a new attempt; all ranks call it.

        `load_state_dict` does this; call it where there is no checkpoint to load, for instance when
        a job that died before its first one begins again.

        Args:
            step: the first step that is trained again.
            key: what all ranks of the restart share, see `Session.restart`.

        Raises:
            StaleAttemptError: a later restart of the job has taken over.
            PacesetterError: the attempt could not be opened; on all ranks alike.
        """
        self._go_back(step, key, lambda: True)

    def resize(self, batch_size: int) -> None:
        """Tell the server that another number of samples is in one step from now on; all ranks do.

        Args:
            batch_size: of all ranks together, gradient accumulation included.

        Raises:
            ConflictError: the session refuses it, or its limits the rate that follows.
            ServerUnavailableError: the server was away for `max_wait` seconds; on all ranks alike.
        """
        if self._relay is not None:
            self._relay.resize(batch_size)
        else:
            self.session.resize(batch_size)
        self._batch_size, self._told = batch_size, True

    def _tell_batch_size(self, due: Callable[[], bool]) -> bool:
        """Say the batch size if nothing has said it and it is due; all ranks call it.

        Returns:
            Whether it is said now, on all ranks alike: the first one decides, which alone knows
            whether the server has answered yet, and what a restart has said.
        """
        size = self._batch_size
        assert size is not None  # noqa: S101 - who calls this has seen to it

        def tell() -> bool:
            if not self._told and self.session.met and due():
                self.session.resize(size)
                self._told = True
            return self._told

        return tell() if self._relay is None else self._relay.decide(tell)

    def report(self, step: int, /, **metrics: Scalar) -> None:
        """Tell the server what was measured at a step, as `step(value)` does; all ranks call it.

        Which ranks' values count is `reports`' affair.

        Args:
            step: the step that it was measured at.
            **metrics: see `Session.report`.
        """
        if self._relay is None:
            self.session.report(step, **metrics)
            return
        for name, value in metrics.items():
            self._relay.report(step, name, value)

    def flush(self) -> None:
        """Deliver all that was reported now; all ranks call it, after their last step for instance.

        Raises:
            ServerUnavailableError: the server was away for `max_wait` seconds; on all ranks alike.
        """
        if self._relay is not None:
            self._relay.flush()
        else:
            self.session.flush()

    def deliver(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Deliver what was reported, trying for so long at most; all ranks call it.

        For the end of a training, see `Session.deliver`.

        Args:
            seconds: for which to try; 0 tries once.

        Returns:
            Whether all was delivered.
        """
        if self._relay is not None:
            return self._relay.deliver(seconds)
        return self.session.deliver(seconds)

    def _is_restart(self, step: int, attempt: object) -> bool:
        """Whether to go to a step is to live it again."""
        if self.session.met and step > self.session.horizon:
            return False  # nobody has trained up to it
        if step != self._reached or attempt != self.session.attempt:
            return True
        # At the first step: has this job handed it out, or one before?
        return step == self.session.info.start_step and self._lived

    @property
    def _reached(self) -> int:
        """The step that this very scheduler would have trained next."""
        return self.last_epoch

    def _go_back(
        self, step: int, key: str | None, needed: Callable[[], bool], known: int | None = None
    ) -> None:
        if key is None and self._attempt_key is not None:
            key = f"{self._attempt_key}/{self._restarts}" if self._restarts else self._attempt_key
        before = self.session.restarts
        if self._relay is not None:
            self._relay.restart(
                step, key=key, needed=needed, known=known, batch_size=self._batch_size
            )
        elif needed():
            self.session.restart(step, key=key, known=known, batch_size=self._batch_size)
        if self.session.restarts != before:
            self._restarts += 1
            self._lived = False
            self._told = True  # with the attempt
        self._forget(step)
        self._seek(step, self._unfit())
        self._look_soon()

    def __getstate__(self) -> dict[str, Any]:
        forgotten: dict[str, Any] = {
            "_window": None,
            "_puts": [],
            "_rows": None,
            "_shared": None,
            "_held": None,
        }
        position = {"_start": self.last_epoch, "_index": 0, "_mark": 0}
        return {**self.__dict__, **forgotten, **position}

    # -- small parts -----------------------------------------------------------------------------

    def _forget(self, step: int) -> None:
        """Be at a step without knowing its values: the next step looks them up."""
        self._start, self._index, self._mark = step, 0, 0
        self._window = self._shared = self._rows = self._held = None
        self._puts = []

    def _columns(self) -> Columns:
        if self._window is None:
            step = self.last_epoch
            self._window = self.session.window(step)
            self._start, self._index = self._window.start, step - self._window.start
        return self._window.columns

    def _bases(self) -> list[float]:
        info = self.session.info
        bases = [info.base_lr(name or None) for name in self._names]
        return [
            rate if base is None else base for base, rate in zip(bases, self._last_lr, strict=True)
        ]


def _only(metrics: Sequence[str]) -> str | None:
    return metrics[0] if len(metrics) == 1 else None


def _column(columns: Columns, name: str) -> Sequence[float]:
    return columns[f"{name}.lr" if name else "lr"]
