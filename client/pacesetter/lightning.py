"""Lightning: a scheduler for `configure_optimizers`, and a callback that reports and obeys.

`lightning` and `pytorch_lightning` hold the same classes twice. The callback derives from that of
the package which is imported already, and works in a Trainer of either.
"""

# ruff: noqa: ARG002 - Lightning's hooks are given what some do not need

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pacesetter._errors import SessionFinishedError
from pacesetter._names import names
from pacesetter._notices import Notice, log_notice
from pacesetter._reports import Scalar
from pacesetter._session import Session
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
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        session = Client().session("vit-run-42", base_lr=0.1)
        scheduler = LightningLR(optimizer, session)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
    ```

    Lightning steps schedulers after the last batch and validates then. So where a controller waits
    for metrics, `step()` only says that the step is trained, and `PacesetterCallback` has it
    `advance()` once they are reported: a cut comes at the very next step or epoch. Without the
    callback, or without a controller, this is a `RemoteLR`.
    """

    _deferring = False
    _trained: int | None = None

    def step(self, metrics: Scalar | None = None) -> None:
        """Note that a step was trained, and advance unless that is deferred."""
        self._trained = self.last_epoch
        super().step(metrics)
        if not self._deferring:
            self.advance()

    def defer(self, *, whether: bool) -> None:
        """Have `step()` wait for `advance()` from now on: for `PacesetterCallback`."""
        self._deferring = whether

    @property
    def trained(self) -> int | None:
        """The step that was trained last, until the next batch begins: for `PacesetterCallback`."""
        return self._trained

    def begin(self) -> None:
        """Note that the next batch begins: for `PacesetterCallback`."""
        self._trained = None

    def begin_at(self, step: int, *, joins: bool) -> None:
        """Train from a step on, in a new attempt if it was trained: for `PacesetterCallback`.

        Args:
            step: the first step.
            joins: another scheduler of the session has opened that attempt.
        """
        attempt = self.session.attempt
        self._go_back(step, None, lambda: not joins and self._is_restart(step, attempt))

    def _forget(self, step: int) -> None:
        super()._forget(step)
        self._trained = None  # it was another position's


class PacesetterCallback(Callback):
    """Reports what the module logs, saves before large changes, stops when the session ends.

    ```python
    trainer = Trainer(callbacks=[PacesetterCallback()])
    ```

    It follows each `LightningLR` of the module. What was logged by the end of a session's step is
    reported for that step, each metric once: with `"interval": "step"` for each update what
    `training_step` has logged (under gradient accumulation, in its last batch) and what a
    validation after it has; with `"interval": "epoch"` the epoch's means and its last validation.
    Nothing is reported of the sanity check, or of `trainer.validate()`.

    Upon the notice `large_change` a checkpoint is saved, before that change is trained with. All
    notices are logged. When a controller has ended the session, `trainer.should_stop` is set. At
    the end of the training all reports are delivered; a server that is away then is logged.

    A job that begins again without a checkpoint opens an attempt at the first step. So does a
    second `fit` of the same trainer, with more epochs say, at the step where the first one ended.

    Args:
        metrics: names of what to report; by default all that is logged, but for the learning rates
            of a `LearningRateMonitor`.
        dirpath: the folder for those checkpoints; by default that of the trainer's
            `ModelCheckpoint`. Without either nothing is saved, and a warning says so.

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
        """Follow nothing yet."""
        self._followed: list[_Followed] = []
        self._heard: weakref.WeakSet[Session] = weakref.WeakSet()
        self._to_save_for: Session | None = None
        self._logs_notices = True

    def __getstate__(self) -> dict[str, Any]:
        # What it follows is of this process: a copy, such as `ddp_spawn` makes, finds its own.
        left_out = _OF_A_PROCESS | _ATTACHED
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    # -- what the trainer calls ------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the schedulers to follow, and have each stand where the trainer is.

        Raises:
            ValueError: there is none, or the trainer would step or show one at the wrong time.
            PacesetterError: the attempt of a training that begins again could not be opened.
        """
        ended = {each.scheduler.session.name: each.scheduler for each in self._followed}
        found = [(each, each.scheduler) for each in trainer.lr_scheduler_configs]
        self._followed = [
            _Followed(scheduler, by_step=config.interval == "step")
            for config, scheduler in found
            if isinstance(scheduler, LightningLR)
        ]
        if not self._followed:
            raise ValueError(
                "PacesetterCallback found nothing to follow: return a pacesetter.lightning."
                "LightningLR from configure_optimizers, in place of any other scheduler"
            )
        if any(c.reduce_on_plateau for c, scheduler in found if isinstance(scheduler, LightningLR)):
            raise ValueError(
                "Lightning steps a scheduler with reduce_on_plateau after it has saved, so that a "
                "resume would repeat a step: leave reduce_on_plateau and monitor out; "
                "PacesetterCallback reports what the session's controllers watch"
            )
        for followed in self._followed:
            scheduler = followed.scheduler
            waits = pl_module.automatic_optimization and bool(scheduler.session.info.metrics)
            scheduler.defer(whether=waits)
            if waits and followed.by_step:
                self._refuse_early_monitors(trainer)
            self._listen(scheduler.session)
        self._logs_notices = trainer.is_global_zero
        self._take_position(ended if trainer.global_step else {})

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - of any type
        batch_idx: int,
    ) -> None:
        """Have the optimizer hold the values of the step that is trained now.

        Raises:
            ValueError: the session has ended, and the trainer does not stop.
        """
        if self._has_ended():
            raise ValueError(
                "a session has ended, and min_epochs or min_steps has the trainer go on: leave "
                "them out, or have no controller end the session"
            )
        self._report(trainer)
        self._advance(trainer)
        if self._has_ended():
            raise StopIteration  # as the loop does where the module's hook gives -1
        for followed in self._followed:
            followed.scheduler.begin()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - of any type
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Report what `training_step` has logged."""
        self._report(trainer, by_step=True)
        self._save_if_told(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what the validation has logged."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._report(trainer, by_step=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what the epoch has logged; before a `ModelCheckpoint` saves."""
        self._report(trainer)
        self._advance(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Deliver all reports; that must not cost what was trained."""
        self._report(trainer)
        for followed in self._followed:
            followed.scheduler.deliver()

    # -- what it does ----------------------------------------------------------------------------

    def _report(self, trainer: Trainer, *, by_step: bool = False) -> None:
        """Report what is new for the steps that were trained; only of those by step, if so."""
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
        """Where nothing was loaded, begin again, or go on where an earlier `fit` has ended."""
        opened: set[Session] = set()
        for followed in self._followed:
            scheduler = followed.scheduler
            session = scheduler.session
            start = session.info.start_step
            if scheduler.last_epoch != start:
                continue
            before = ended.get(session.name)
            step = start if before is None else before.state_dict()["last_epoch"]
            scheduler.begin_at(step, joins=session in opened)
            opened.add(session)

    def _listen(self, session: Session) -> None:
        def obey(notice: Notice) -> None:
            if self._logs_notices:
                log_notice(notice)
            if notice.code == "large_change":
                self._to_save_for = session  # not here, where it is in the middle of a step

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
        scheduler: it.
        by_step: whether the trainer steps it by batches, not by epochs.
        ended: whether its session has.
    """

    def __init__(self, scheduler: LightningLR, *, by_step: bool) -> None:
        self.scheduler = scheduler
        self.by_step = by_step
        self.ended = False
        self._seen: dict[str, torch.Tensor] = {}
        self._step: int | None = None
        self._reported: set[str] = set()

    def report(self, logged: _Metrics) -> None:
        """Report what was logged since the last look for the step that was trained, each once."""
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
    """What was logged anew. The old tensors are kept, so that no new one lies where they do."""
    return {
        name: value
        for name, value in now.items()
        if name not in before or value.data_ptr() != before[name].data_ptr()
    }


def _callbacks(trainer: Trainer) -> list[Any]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return callbacks
