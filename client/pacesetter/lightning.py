"""Lightning: a scheduler for `configure_optimizers`, and a callback that reports and obeys.

`lightning` and `pytorch_lightning` contain the same classes twice. The callback derives from that
of the package that is already imported, and works in a Trainer of either.
"""

# ruff: noqa: ANN401, ARG002 - Lightning's hooks are given anything, and what some do not need

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from pacesetter._core import WayBack
from pacesetter._errors import SessionFinishedError
from pacesetter._names import names
from pacesetter._notices import Notice, log_notice
from pacesetter._reports import Scalar
from pacesetter._session import Session, core_of
from pacesetter._torch.deferred import DeferredLR

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback

__all__ = ["LightningLR", "PacesetterCallback"]

logger = logging.getLogger("pacesetter")

_Metrics = Mapping[str, torch.Tensor]
_OF_A_PROCESS = {"_followed", "_heard", "_logs_notices", "_to_save_for"}
_ATTACHED = {"log", "log_dict"}  # methods of the module that a trainer attaches to its callbacks


class LightningLR(DeferredLR):
    """A `RemoteLR` as Lightning needs it: `step()` comes before the step is measured.

    ```python
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        scheduler = LightningLR(
            optimizer, lambda: Client().session("vit-run-42", base_lr=self.lr)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
    ```

    Lightning steps schedulers after the last batch, and only then validates. So where a controller
    waits for metrics, `step()` only says that the step is trained, and `PacesetterCallback` has it
    `advance()` once they are reported: a cut comes at the very next step or epoch. Without the
    callback, or without a controller, this is a `RemoteLR`.

    Args:
        optimizer: The optimizer to drive.
        session: The session that the values come from, or a function that opens it, which
            `PacesetterCallback` calls when the training begins. So `Tuner.lr_find`, which makes the
            optimizer and never trains with this scheduler, creates no session.
        **options: The same as for `RemoteLR`.
    """

    _deferring = False
    trained: int | None = None
    """The step trained last, until the next batch begins; `PacesetterCallback` reads it."""
    repeats: bool
    """Whether another training of this process has walked through its `Session` before."""
    _opens: Callable[[], Session] | None = None  # until it has opened the session

    def __init__(
        self, optimizer: Optimizer, session: Session | Callable[[], Session], **options: Any
    ) -> None:
        if not callable(session):
            self._build(optimizer, session, options)
            return
        self.optimizer = optimizer
        self._opens, self._options = session, options
        self._driven = len(optimizer.param_groups)
        self._loaded: dict[str, Any] = {}

    def _build(self, optimizer: Optimizer, session: Session, options: Mapping[str, Any]) -> None:
        is_one = isinstance(session, Session)  # anything else is refused below
        stood = core_of(session).walkers.position if is_one else None
        super().__init__(optimizer, session, **options)
        self.repeats = stood not in {None, core_of(session).begins_at}
        self._is_placed = False

    def open(self) -> None:
        """Open the session, if that is still to do; `PacesetterCallback` calls it."""
        if self._opens is None:
            return
        # Param groups that callbacks have added meanwhile are added to this scheduler too.
        groups = self.optimizer.param_groups
        added = groups[self._driven :]
        del groups[self._driven :]
        try:
            self._build(self.optimizer, self._opens(), self._options)
        finally:
            groups.extend(added)
        self._opens = None
        if added:
            self.write_again()
        if self._loaded:
            self.load_state_dict(self._loaded)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__} has no {name!r}"
            if self._opens is not None:
                text += " yet: PacesetterCallback opens its session when the training begins"
            raise AttributeError(text)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next step; empty before the session is open."""
        return super().state_dict() if self._opens is None else dict(self._loaded)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a checkpoint's step, as `RemoteLR` does, as soon as the session is open."""
        if self._opens is None:
            super().load_state_dict(state_dict)
        else:
            self._loaded = dict(state_dict)

    def step(self, metrics: Scalar | None = None) -> None:
        """Note that a step was trained, and advance unless that is deferred.

        Raises:
            ValueError: The session was not opened, so this update had another rate.
        """
        if self._opens is not None:
            raise ValueError(
                "LightningLR was given a function that opens its session, and PacesetterCallback "
                "calls that before the first update: name it in the trainer's callbacks, or pass "
                "LightningLR the session itself"
            )
        self.trained = self.last_epoch
        super().step(metrics)
        if not self._deferring:
            self.advance()

    def defer(self, *, whether: bool) -> None:
        """Set whether `step()` waits for `advance()` from now on; `PacesetterCallback` calls it."""
        self._deferring = whether

    def begin(self) -> None:
        """Note that the next batch begins; `PacesetterCallback` calls it."""
        self.trained = None

    @property
    def is_placed(self) -> bool:
        """Whether a state was loaded, or its step was set; `PacesetterCallback` reads it."""
        return self._is_placed or self.last_epoch != core_of(self.session).begins_at

    def _go_back(self, way: WayBack, needed: Callable[[], bool]) -> None:
        super()._go_back(way, needed)
        self._is_placed = True

    def begin_training(self, *, again: bool) -> None:
        """Settle, before the first update, what becomes of steps that were trained before.

        `PacesetterCallback` calls it, on all ranks.

        Args:
            again: Whether the `Session` was walked through, and no other scheduler has gone back
                for it.

        Raises:
            ResumeError: They would be trained again without that having been requested.
        """
        if not self._restarts.lived:
            self._catch_up()
            return
        restarts = core_of(self.session).restarts
        self._begin()
        way = WayBack(self.last_epoch)
        self._go_back(way, lambda: again and core_of(self.session).restarts == restarts)

    def go_on_at(self, step: int, *, joins: bool) -> None:
        """Train on, in a new attempt, from the step at which an earlier `fit` of the trainer ended.

        `PacesetterCallback` calls it, on all ranks.

        Args:
            step: The first step.
            joins: Whether another scheduler of the session has opened that attempt.
        """
        attempt = self.session.attempt
        self._go_back(WayBack(step), lambda: not joins and self._is_due(step, attempt))

    def _forget(self, step: int) -> None:
        super()._forget(step)
        self.trained = None  # it belonged to another position


class PacesetterCallback(Callback):
    """Reports what the module logs, saves before large changes, and stops when the session ends.

    ```python
    trainer = Trainer(callbacks=[PacesetterCallback()])
    ```

    It follows each `LightningLR` of the module. What was logged by the end of a session's step is
    reported for that step, each metric once. With `"interval": "step"`, that is what
    `training_step` has logged for each update (under gradient accumulation, in its last batch), and
    what a validation after it has logged; with `"interval": "epoch"`, it is the epoch's means and
    its last validation. Nothing of the sanity check, or of `trainer.validate()`, is reported.

    Upon the notice `large_change` a checkpoint is saved, before that change is trained with. All
    notices are logged. When a controller has ended the session, `trainer.should_stop` is set. At
    the end of the training all reports are delivered; if the server is away then, that is logged.

    It makes a `LightningLR` open its session, if that is left to it. A job that begins again
    without a checkpoint is refused with `ResumeError` before its first update, unless its launcher
    has started it again or `resume` says what is meant. A second `fit` of the same trainer, for
    instance with more epochs, opens an attempt at the step where the first one ended.

    Args:
        metrics: Names of what to report; by default all that is logged, except the learning rates
            of a `LearningRateMonitor`.
        dirpath: The folder for those checkpoints; by default that of the trainer's
            `ModelCheckpoint`. Without either, nothing is saved, and a warning says so.

    Raises:
        TypeError: `metrics` is a string.
    """

    def __init__(
        self, metrics: Iterable[str] | None = None, *, dirpath: str | Path | None = None
    ) -> None:
        self._wanted = None if metrics is None else names(metrics, "metrics")
        self._dirpath = dirpath
        self._begin()

    def _begin(self) -> None:
        """Reset: follow nothing yet."""
        self._followed: list[_Followed] = []
        self._heard: weakref.WeakSet[Session] = weakref.WeakSet()
        self._to_save_for: Session | None = None
        self._logs_notices = True

    def __getstate__(self) -> dict[str, Any]:
        # What it follows belongs to this process: a copy, such as `ddp_spawn` makes, finds its own.
        left_out = _OF_A_PROCESS | _ATTACHED
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    # -- what the trainer calls ------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the schedulers to follow, and move each to where the trainer is.

        Raises:
            ValueError: There is no scheduler, or the trainer would step or show one at the wrong
                time.
            ResumeError: Steps would be trained again without that having been requested.
            PacesetterError: The session, or an attempt of it, could not be opened.
        """
        ended = {each.scheduler.session.name: each.scheduler for each in self._followed}
        found = [
            (config, scheduler)
            for config in trainer.lr_scheduler_configs
            if isinstance(scheduler := config.scheduler, LightningLR)
        ]
        self._followed = [
            _Followed(scheduler, by_step=config.interval == "step") for config, scheduler in found
        ]
        if not self._followed:
            raise ValueError(
                "PacesetterCallback found nothing to follow: return a pacesetter.lightning."
                "LightningLR from configure_optimizers, in place of any other scheduler"
            )
        if any(config.reduce_on_plateau for config, _ in found):
            raise ValueError(
                "Lightning steps a scheduler with reduce_on_plateau after it has saved, so that a "
                "resume would repeat a step: leave reduce_on_plateau and monitor out; "
                "PacesetterCallback reports what the session's controllers watch"
            )
        for followed in self._followed:
            scheduler = followed.scheduler
            scheduler.open()
            waits = pl_module.automatic_optimization and bool(scheduler.session.info.metrics)
            scheduler.defer(whether=waits)
            if waits and followed.by_step:
                self._refuse_early_monitors(trainer)
            self._listen(scheduler.session)
        self._logs_notices = trainer.is_global_zero
        self._take_position(ended if trainer.global_step else {})

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write the values of the step that is trained now to the optimizer.

        Raises:
            ValueError: The session has ended, and the trainer does not stop.
        """
        if self._has_ended():
            raise ValueError(
                "a session has ended, and min_epochs or min_steps has the trainer go on: leave "
                "them out, or have no controller end the session"
            )
        self._report(trainer)
        self._advance(trainer)
        if self._has_ended():
            raise StopIteration  # as the loop does where the module's hook returns -1
        for followed in self._followed:
            followed.scheduler.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report what `training_step` has logged."""
        self._report(trainer, by_step=True)
        self._save_if_told(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what the validation has logged."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._report(trainer, by_step=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what the epoch has logged, before a `ModelCheckpoint` saves."""
        self._report(trainer)
        self._advance(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Deliver all reports; a failure must not cost what was trained."""
        self._report(trainer)
        for followed in self._followed:
            followed.scheduler.deliver()
            followed.scheduler.end()

    # -- what it does ----------------------------------------------------------------------------

    def _report(self, trainer: Trainer, *, by_step: bool = False) -> None:
        """Report what is new for the trained steps; with `by_step`, only of those by step."""
        logged: _Metrics | None = None
        for followed in self._followed:
            if followed.scheduler.trained is not None and (followed.by_step or not by_step):
                logged = self._logged(trainer) if logged is None else logged
                followed.report(logged)

    def _logged(self, trainer: Trainer) -> _Metrics:
        rates = tuple(name for each in _callbacks(trainer) for name in getattr(each, "lrs", ()))
        return {
            name: value
            for name, value in trainer.callback_metrics.items()
            if (not name.startswith(rates) if self._wanted is None else name in self._wanted)
        }

    def _advance(self, trainer: Trainer) -> None:
        """Go on to the next step, at the same moment on all ranks."""
        for followed in self._followed:
            if followed.ended:
                continue
            try:
                followed.scheduler.advance()
            except SessionFinishedError as error:
                if trainer.is_global_zero:
                    logger.info("the trainer stops: %s", error)
                followed.ended = trainer.should_stop = True
        self._save_if_told(trainer)

    def _has_ended(self) -> bool:
        return any(followed.ended for followed in self._followed)

    def _take_position(self, ended: Mapping[str, LightningLR]) -> None:
        """Begin where nothing was loaded, or go on where an earlier `fit` has ended."""
        schedulers = [followed.scheduler for followed in self._followed]
        again = {each.session for each in schedulers if each.repeats}
        opened: set[Session] = set()
        for scheduler in schedulers:
            session = scheduler.session
            if not scheduler.is_placed:
                before = ended.get(session.name)
                if before is None:
                    scheduler.begin_training(again=session in again - opened)
                else:
                    step = before.state_dict()["last_epoch"]
                    scheduler.go_on_at(step, joins=session in opened)
                opened.add(session)

    def _listen(self, session: Session) -> None:
        def obey(notice: Notice) -> None:
            if self._logs_notices:
                log_notice(notice)
            if notice.code == "large_change":
                self._to_save_for = session  # not here, in the middle of a step

        if session not in self._heard:
            self._heard.add(session)
            session.on_notice(obey)

    def _save_if_told(self, trainer: Trainer) -> None:
        session, self._to_save_for = self._to_save_for, None
        scheduler = next(
            (each.scheduler for each in self._followed if each.scheduler.session is session), None
        )
        if scheduler is None:
            return
        name = scheduler.session.name
        folder = self._dirpath or getattr(trainer.checkpoint_callback, "dirpath", None)
        if folder is None:
            logger.warning(
                "no checkpoint of %s is saved ahead of the change: pass dirpath= to "
                "PacesetterCallback, or give the trainer a ModelCheckpoint",
                name,
            )
            return
        step = scheduler.state_dict()["last_epoch"]
        trainer.save_checkpoint(Path(folder) / f"pacesetter-{name}-step={step}.ckpt")

    def _refuse_early_monitors(self, trainer: Trainer) -> None:
        callbacks = _callbacks(trainer)
        if any(hasattr(each, "lrs") for each in callbacks[: callbacks.index(self)]):
            raise ValueError(
                "LearningRateMonitor would show the rate of the step before: name "
                "PacesetterCallback before it in the trainer's callbacks"
            )


class _Followed:
    """A scheduler of the module, and what was reported for its step.

    Attributes:
        scheduler: The scheduler.
        by_step: Whether the trainer steps it by batches, not by epochs.
        ended: Whether its session has ended.
    """

    def __init__(self, scheduler: LightningLR, *, by_step: bool) -> None:
        self.scheduler = scheduler
        self.by_step = by_step
        self.ended = False
        self._seen: dict[str, torch.Tensor] = {}
        self._step: int | None = None
        self._reported: set[str] = set()

    def report(self, logged: _Metrics) -> None:
        """Report what was logged since the last call for the step that was trained, each once."""
        fresh = _changed(self._seen, logged)
        self._seen.update(fresh)
        step = self.scheduler.trained
        if step is None or not fresh:
            return
        if step != self._step:
            self._step = step
            self._reported.clear()
        new = {name: value for name, value in fresh.items() if name not in self._reported}
        self._reported.update(new)
        self.scheduler.report(step, **new)


def _changed(before: _Metrics, now: _Metrics) -> _Metrics:
    """Return what was logged anew. Old tensors are kept, so that no new one gets their address."""
    return {
        name: value
        for name, value in now.items()
        if name not in before or value.data_ptr() != before[name].data_ptr()
    }


def _callbacks(trainer: Trainer) -> list[Any]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return callbacks
