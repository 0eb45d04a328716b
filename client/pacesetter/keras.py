"""Keras 3: a callback that has `fit` train with the learning rates of a session.

keras is imported here and nowhere else; `KERAS_BACKEND` is the training's own affair.
"""

# ruff: noqa: ARG002 - Keras' hooks are given what some do not need

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import keras  # type: ignore[import-untyped, import-not-found, unused-ignore]

from pacesetter._errors import GroupError, SessionFinishedError
from pacesetter._logs import measured
from pacesetter._names import names
from pacesetter._session import Session
from pacesetter._window import Window

__all__ = ["PacesetterCallback"]

logger = logging.getLogger("pacesetter")

INTERVALS = ("epoch", "batch")


class PacesetterCallback(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """Sets the optimizer's learning rate by a session, as Keras' `LearningRateScheduler` would.

    ```python
    schedule = {"kind": "exponential", "gamma": 0.95}
    session = Client().session("mnist", base_lr=0.1, schedule=schedule)
    model.fit(x, y, epochs=100, callbacks=[PacesetterCallback(session)])
    ```

    The optimizer is made with a number, not with a `LearningRateSchedule`: the schedule is the
    session's. It keeps its rate in float32, so it holds the float32 nearest to what was sealed;
    that is what `logs["learning_rate"]` says, and the server knows it for the same.

    What `fit` logs is reported for the epoch, or the batch, and a controller that watches it, say
    `val_loss`, decides before the next one; in place of `ReduceLROnPlateau`. Of a batch Keras logs
    the means since the epoch began. When a controller ends the session, `fit` stops.

    A `fit` that begins at another step than the one that comes next goes back to it: a new attempt
    is opened, as in a restart. So give `initial_epoch` to a `fit` that goes on; `BackupAndRestore`
    does so by itself.

    Args:
        session: it has one series, `lr`.
        interval: `"epoch"`: a step is an epoch, by its number. `"batch"`: a step is an update, by
            the optimizer's `iterations` when `fit` begins, and counted from there. One for which
            an epoch or a `fit` has too few batches to accumulate is finished by the next.
        metrics: names of what to report; by default all that is logged.

    Raises:
        GroupError: the session has groups, or drives more than the learning rate.
        TypeError: one name was given in place of a collection.
    """

    def __init__(
        self,
        session: Session,
        *,
        interval: str = "epoch",
        metrics: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        if interval not in INTERVALS:
            raise ValueError(f"interval={interval!r}: choose from {', '.join(INTERVALS)}")
        if session.series != ("lr",):
            raise GroupError(
                f"session {session.name} drives {', '.join(session.series)}, and an optimizer of "
                "Keras has one learning rate: create it without groups, and with a schedule of the "
                "learning rate alone"
            )
        self.session = session
        self._by_batch = interval == "batch"
        self._wanted = None if metrics is None else names(metrics, "metrics")
        self._lived = session.info.horizon > session.info.start_step
        self._next: int | None = None  # the step of the next batch, or epoch
        self._begun = False
        self._step = 0
        self._batches = 0  # that the optimizer has seen
        self._window: Window | None = None
        self._batch_logs: Mapping[str, Any] = {}

    # -- what fit calls --------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """See that the optimizer's rate can be written.

        Raises:
            TypeError: it has a schedule of its own.
            ValueError: it has several rates, or they could not be written once a batch.
        """
        _refuse_unfit(self.model, by_batch=self._by_batch)
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Have the optimizer hold the rate of the epoch."""
        if not self._by_batch:
            self._apply(epoch)
        elif not self._begun:
            # `iterations` are updates, and leaves out what was accumulated for the next.
            self._batches = int(_inner(self.model.optimizer)._iterations)  # noqa: SLF001

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Have the optimizer hold the rate of the update."""
        if self._by_batch:
            self._apply(self._batches // self._accumulated)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report the batch."""
        if not self._by_batch:
            return
        self._batches += 1
        self._next = self._batches // self._accumulated
        self._batch_logs = logs or {}
        if self._is_unfinished:
            return
        self._report(self._batch_logs)
        # After the last batch of an epoch a validation may follow, which is to be seen before.
        if batch + 1 != self.params.get("steps"):
            self._look_ahead()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the epoch, and say in its logs what the optimizer holds."""
        logs = {} if logs is None else logs
        self._report({name: logs[name] for name in logs if name not in self._batch_logs})
        self._batch_logs = {}
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        if epoch + 1 != self.params.get("epochs") and not self._is_unfinished:
            self._look_ahead()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Deliver all reports; that must not cost what was trained."""
        self.session.deliver()

    # -- what it does ----------------------------------------------------------------------------

    def _apply(self, step: int) -> None:
        """Write the rate of a step, going back to it where the training does."""
        if not self._begun:
            self._begin(step)
        window = self._ask(step)
        self._step = step
        self._next = step if self._by_batch else step + 1
        self.model.optimizer.learning_rate = window.columns["lr"][step - window.start]

    def _begin(self, step: int) -> None:
        # An interrupt may have come between an update and the end of its batch.
        is_updated = self._by_batch and self._next == self._step == step - 1
        goes_on = step == self._next or is_updated
        fresh = self._next is None and step == self.session.info.start_step and not self._lived
        if step < self.session.horizon and not goes_on and not fresh:
            self.session.restart(step)
            self._window = None
        self._begun = True

    def _ask(self, step: int) -> Window:
        """Have the window of a step; at its edge the server is told what the optimizer holds."""
        window = self._window
        if window is None or step not in window or step - window.start >= window.mark:
            if window is not None and window.sealed and self._step in window:
                self.session.applied(self._step, {"lr": self._held()})
            self._window = window = self.session.window(step)
        return window

    def _look_ahead(self) -> None:
        """Know whether there is a next step, while `fit` can still be stopped before it."""
        try:
            self._ask(self._step + 1)
        except SessionFinishedError as error:
            logger.info("fit stops: %s", error)
            self.model.stop_training = True

    def _report(self, logs: Mapping[str, Any]) -> None:
        metrics = {
            name: value
            for name, value in measured(logs).items()
            if not name.startswith("learning_rate")
            and (self._wanted is None or name in self._wanted)
        }
        self.session.report(self._step, **metrics)

    def _held(self) -> Any:  # noqa: ANN401 - a Scalar
        value = self.model.optimizer.learning_rate
        # A tensor of torch's is copied where it is, and read when somebody may wait for it.
        return value.value if hasattr(value.value, "detach") else float(value)

    @property
    def _accumulated(self) -> int:
        """How many batches make an update."""
        return _inner(self.model.optimizer).gradient_accumulation_steps or 1

    @property
    def _is_unfinished(self) -> bool:
        """Whether the step lacks batches."""
        return self._by_batch and self._batches % self._accumulated > 0


def _inner(optimizer: Any) -> Any:  # noqa: ANN401 - keras has no types
    """The optimizer that counts: a LossScaleOptimizer has one inside."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _refuse_unfit(model: Any, *, by_batch: bool) -> None:  # noqa: ANN401 - keras has no types
    optimizer = model.optimizer
    if hasattr(optimizer, "optimizers"):
        raise ValueError(
            f"{type(optimizer).__name__} has several learning rates: compile the model with one "
            "optimizer, or write the rates yourself, by Session.lr(step, group)"
        )
    if not isinstance(optimizer.learning_rate, keras.Variable):
        raise TypeError(
            "the optimizer has a learning rate schedule of its own, so that its rate cannot be "
            "written: give it a number, and the schedule to the session, for instance as kind "
            "keras.CosineDecay"
        )
    if by_batch and model.steps_per_execution != 1:
        raise ValueError(
            f"steps_per_execution={model.steps_per_execution} updates with one rate: compile the "
            'model without it, or take interval="epoch"'
        )
