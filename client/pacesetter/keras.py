"""Keras 3: a callback that makes `fit` train with the learning rates of a session.

keras is imported here and nowhere else; the choice of `KERAS_BACKEND` is left to the training.
"""

# ruff: noqa: ARG002 - Keras' hooks are given what some do not need

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import keras  # type: ignore[import-untyped, import-not-found, unused-ignore]

from pacesetter._core import WayBack
from pacesetter._errors import GroupError, ResumeError, SessionFinishedError
from pacesetter._groups import close
from pacesetter._logs import measured
from pacesetter._names import names
from pacesetter._session import Session, core_of
from pacesetter._window import Window

__all__ = ["PacesetterCallback"]

logger = logging.getLogger("pacesetter")

INTERVALS = ("epoch", "batch")


class PacesetterCallback(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """Sets the optimizer's learning rate from a session, as Keras' `LearningRateScheduler` would.

    ```python
    schedule = {"kind": "exponential", "gamma": 0.95}
    session = Client().session("mnist", base_lr=0.1, schedule=schedule)
    model.fit(x, y, epochs=100, callbacks=[PacesetterCallback(session)])
    ```

    Make the optimizer with a number, not with a `LearningRateSchedule`: the schedule is the
    session's. The optimizer keeps its rate in float32, so it holds the float32 nearest to what was
    sealed. That is what `logs["learning_rate"]` shows, and the server recognises it as the same.

    What `fit` logs is reported for the epoch, or the batch. A controller that watches it, for
    instance `val_loss`, decides before the next one, in place of `ReduceLROnPlateau`. For a batch,
    Keras logs the means since the epoch began. When a controller ends the session, `fit` stops.

    A `fit` that begins at a step other than the next goes back to it: a new attempt is opened, as
    in a restart. So give `initial_epoch` to a `fit` that goes on; `BackupAndRestore` does so by
    itself. A job that begins again at the first step, with nothing restored, is refused with
    `ResumeError` before its first update, unless its launcher has started it again or the session's
    `resume` says what is meant. So is a `fit` that begins elsewhere than at the step that the
    session was opened with or sent back to, or before the first step of a fork.

    Args:
        session: A session with one series, `lr`.
        interval: `"epoch"`: a step is an epoch, by its number. `"batch"`: a step is an update, by
            the optimizer's `iterations` when `fit` begins, and counted from there. An update for
            which an epoch or a `fit` has too few batches to accumulate is finished by the next.
        updates_before: With `interval="batch"`, the updates that the optimizer has not counted,
            because it was created after them; its own `iterations` are added.
        metrics: Names of what to report; by default all that is logged.

    Raises:
        GroupError: The session has groups, or drives more than the learning rate.
        TypeError: One name was given in place of a collection.
        ValueError: There is no such interval, or `updates_before` was given for epochs.
    """

    def __init__(
        self,
        session: Session,
        *,
        interval: str = "epoch",
        updates_before: int = 0,
        metrics: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        if interval not in INTERVALS:
            raise ValueError(f"interval={interval!r}: choose from {', '.join(INTERVALS)}")
        if updates_before < 0 or (updates_before and interval != "batch"):
            raise ValueError(
                f"updates_before={updates_before} is a number of updates, for interval='batch': "
                "where steps are epochs, give initial_epoch to fit"
            )
        if session.series != ("lr",):
            raise GroupError(
                f"session {session.name} drives {', '.join(session.series)}, and an optimizer of "
                "Keras has one learning rate: create it without groups, and with a schedule of the "
                "learning rate alone"
            )
        self.session = session
        self._by_batch = interval == "batch"
        self._wanted = None if metrics is None else names(metrics, "metrics")
        self._updates_before = updates_before
        self._next: int | None = None  # the step of the next batch, or epoch
        core = core_of(session)
        self._sent_to = core.sent_to if core.walkers.position is None else None
        self._begun = False
        self._step = 0  # the step that is trained, or was last
        self._batches = 0  # trained batches: `_accumulated` of them are a step
        self._is_left = False  # whether the server was away at the end
        self._window: Window | None = None
        self._written: int | None = None  # the step whose rate this `fit` wrote last
        self._rate = 0.0  # the rate that it wrote
        self._steps = 0  # steps that were written and trained
        self._looks_at = 1  # `_steps` at the next check of the optimizer
        self._batch_logs: Mapping[str, Any] = {}
        core.walkers.join(self)

    # -- what fit calls --------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Refuse an optimizer whose rate cannot be written.

        Raises:
            TypeError: The optimizer has a schedule of its own.
            ValueError: The optimizer has several rates, or they could not be written once per
                batch.
        """
        _refuse_unfit(self.model, by_batch=self._by_batch)
        self._begun = self._is_left = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the rate of the epoch to the optimizer.

        Raises:
            ValueError: Steps are updates, and the optimizer has made none before this epoch.
        """
        if not self._by_batch:
            self._apply(epoch)
        elif not self._begun:
            self._batches = self._batches_before(epoch)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the rate of the update to the optimizer."""
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
        # After the last batch of an epoch, a validation may follow, which must be seen first.
        if batch + 1 != self.params.get("steps"):
            self._look_ahead()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the epoch, log the rate that the optimizer holds, and write the next one.

        So a model that is saved now, even after the last epoch, has what a controller decided on
        this epoch, as with Keras' `ReduceLROnPlateau`.
        """
        logs = {} if logs is None else logs
        self._report({name: logs[name] for name in logs if name not in self._batch_logs})
        self._batch_logs = {}
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self._is_unfinished:
            return
        if epoch + 1 == self.params.get("epochs"):
            # Nothing more is trained: do not wait for an absent server as in a step.
            self._is_left = not self.session.deliver()
        if not self._is_left and self._look_ahead():
            self._write(self._step + 1)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Deliver all reports; a failure must not cost what was trained."""
        if not self._is_left:
            self.session.deliver()
        core_of(self.session).end()

    # -- what it does ----------------------------------------------------------------------------

    def _apply(self, step: int) -> None:
        """Write the rate of a step, and go back to it where the training does."""
        if not self._begun or self._sent_to is not None:
            self._begin(step)
        self._write(step)
        self._sent_to = None
        self._step = step
        self._next = step if self._by_batch else step + 1

    def _write(self, step: int) -> None:
        """Write the rate of a step; by now, that of the step before was trained with."""
        rate = self._ask(step).values(step)["lr"]
        if self._written not in {None, step}:
            self._look()
        self._rate = rate
        self.model.optimizer.learning_rate = self._rate
        self._written = step

    def _look(self) -> None:
        """Check, after 1, 2, 4, 8... steps, that nothing else has written the rate; warn once."""
        self._steps += 1
        if self._steps != self._looks_at:
            return
        held = float(self.model.optimizer.learning_rate)
        if close(held, self._rate):
            self._looks_at *= 2
        else:
            logger.warning(
                "session %s: the optimizer has the learning rate %r, and %r was written for step "
                "%d: something else writes it. Remove the LearningRateScheduler or the "
                "ReduceLROnPlateau, or change the rate on the server",
                self.session.name,
                held,
                self._rate,
                self._written,
            )

    def _compare(self, step: int) -> None:
        """Warn, at the start, if the optimizer was made with another rate than the session has."""
        rate = self._ask(step).values(step)["lr"]
        held = float(self.model.optimizer.learning_rate)
        base = self.session.info.base_lr(None)
        if base is not None and not close(held, base) and not close(held, rate):
            logger.warning(
                "session %s: the optimizer was made with the learning rate %r, and the session's "
                "is trained with: %r. Compile the model with that one, or create the session with "
                "base_lr=float(model.optimizer.learning_rate)",
                self.session.name,
                held,
                base,
            )

    def _begin(self, step: int) -> None:
        """Find out how a `fit` that begins at a step relates to what was trained before."""
        core, start = core_of(self.session), self.session.info.start_step
        self._refuse_elsewhere(step)
        self._written = None
        if self._next is None:
            self._next = core.walkers.position  # where another callback stood
        # An interrupt may have come between an update and the end of its batch.
        is_updated = self._by_batch and self._next == self._step == step - 1
        if self._next is None and step == start:
            core.begin(step)  # nothing was restored
            self._compare(step)
        elif not (step == self._next or is_updated) and self._is_restart(step):
            self._window = None
            core.go_back(WayBack(step, by=self))
            self._sent_to = self._next = step  # also where its values do not come
        core.walkers.lead(self)
        self._begun = True

    def went_back(self, step: int) -> None:
        """Note that `fit` must go on at the step, as the session now does; the session calls it."""
        self._sent_to = self._next = step
        self._window = None

    def _refuse_elsewhere(self, step: int) -> None:
        """Refuse to train a step that is not the session's next.

        Raises:
            ResumeError: The session was sent to another step, or the step is another session's.
        """
        session, sent_to = self.session, self._sent_to
        if sent_to is None:
            branches = core_of(session).is_to_branch
            first = session.info.start_step if branches else session.info.first_step
            fits = step >= first
        else:
            first, fits = sent_to, step == sent_to
        if not fits:
            how = "the optimizer's state, or updates_before" if self._by_batch else "initial_epoch"
            raise ResumeError(
                f"session {session.name} goes on at step {first}, and fit would train step {step}:"
                f" load the weights of step {first}, and have fit begin there, by {how}"
            )

    def _is_restart(self, step: int) -> bool:
        """Return whether steps were trained from there on, or must branch off there."""
        return step < self.session.horizon or core_of(self.session).is_to_branch

    @property
    def position(self) -> int:
        """The step that is trained now, or next; the session reads it."""
        return self._step if self._next is None else self._next

    def __del__(self) -> None:
        if getattr(self, "_next", None) is not None:  # otherwise it never trained
            core_of(self.session).walkers.leave(self, self.position)

    def _batches_before(self, epoch: int) -> int:
        """Return the number of batches that were trained before an epoch, the first of a `fit`."""
        # `iterations` are updates; batches that were accumulated for the next one count here too.
        counted = int(_inner(self.model.optimizer)._iterations)  # noqa: SLF001
        trained = counted + self._updates_before * self._accumulated
        if epoch and not trained:
            raise ValueError(
                f"fit begins with initial_epoch={epoch}, but the optimizer is new: it has made no "
                "update, so with interval='batch' the training would begin again at step 0. Load "
                "the optimizer together with the weights (keras.models.load_model, or "
                "BackupAndRestore), or pass updates_before= to the PacesetterCallback"
            )
        steps = self.params.get("steps")
        if steps and trained != epoch * steps and trained // self._accumulated != self._next:
            logger.warning(
                "fit begins with epoch %d of %d batches each, and the optimizer has seen %d: the "
                "session goes on at the optimizer's step %d",
                epoch,
                steps,
                trained,
                trained // self._accumulated,
            )
        return trained

    def _ask(self, step: int) -> Window:
        """Fetch the window of a step; at its edge, tell the server what the optimizer holds."""
        if self._sent_to is not None:
            self._refuse_elsewhere(step)
        window = self._window
        if window is None or step not in window or step - window.start >= window.mark:
            written = self._written
            if window is not None and window.sealed and written is not None and written in window:
                self.session.applied(written, {"lr": self._held()})
            self._window = window = core_of(self.session).window(step)
        return window

    def _look_ahead(self) -> bool:
        """Return whether there is a next step, and stop `fit` if not."""
        try:
            self._ask(self._step + 1)
        except SessionFinishedError as error:
            logger.info("fit stops: %s", error)
            self.model.stop_training = True
            return False
        return True

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
        # A torch tensor is copied on its device, and read by a thread that may wait for it.
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
    """Return the optimizer that counts: a LossScaleOptimizer has it inside."""
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
