"""Hugging Face's `Trainer` by a session: its learning rates, its metrics, its checkpoints.

transformers is imported here and nowhere else.
"""

# ruff: noqa: ANN401, ARG002 - a callback has the Trainer's signatures

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SchedulerType, has_length

from pacesetter._client import Client
from pacesetter._errors import (
    ConflictError,
    PacesetterError,
    SessionFinishedError,
    UnsupportedSchedulerError,
)
from pacesetter._groups import group_names
from pacesetter._logs import measured
from pacesetter._names import names
from pacesetter._notices import Notice
from pacesetter._reports import Scalar
from pacesetter._session import Session
from pacesetter._torch.deferred import DeferredLR
from pacesetter.distributed import open_session

if TYPE_CHECKING:
    from typing import Unpack  # of Python 3.11

    from pacesetter._spec import Description

__all__ = [
    "PacesetterCallback",
    "PacesetterTrainer",
    "PacesetterTrainerMixin",
    "TrainerLR",
    "description",
]

logger = logging.getLogger("pacesetter")


class TrainerLR(DeferredLR):
    """A `RemoteLR` as the Trainer needs it: `step()` is asked for before a step is evaluated.

    So `step()` only says that an update was made; `PacesetterCallback` has it `advance()` once what
    was measured is reported. A controller that sees an evaluation then decides before the very next
    update, as the Trainer's own `reduce_lr_on_plateau` does.
    """

    def step(self, metrics: Scalar | None = None) -> None:
        """Note that an update was made.

        Raises:
            PacesetterError: the one before was never followed: the callback is missing.
        """
        if self._due:
            raise PacesetterError(
                "nobody has advanced the learning rate since the last update: keep the "
                "PacesetterCallback among the Trainer's callbacks"
            )
        super().step(metrics)


class PacesetterCallback(TrainerCallback):
    """Has a Trainer follow a session: give it to a `PacesetterTrainer`.

    ```python
    trainer = PacesetterTrainer(model, args, callbacks=[PacesetterCallback("run-42")], ...)
    ```

    A session that does not exist is created with the schedule that the arguments describe (see
    `description`), so that the Trainer trains as it did before. What the Trainer logs is reported
    at the step that it was measured at: `loss`, `grad_norm`, `eval_loss` and all other numbers but
    the Trainer's own times and its counts. The first process reports for all, since the Trainer has
    taken the mean.

    A restart needs nothing: `train(resume_from_checkpoint=...)` opens an attempt at the
    checkpoint's step, and a job that begins again without one opens it at the first step.

    Args:
        session: its name, or one that is open.
        client: the connection; by default a new `Client()`.
        save_on: codes of notices upon which a checkpoint is saved; the change that a
            `large_change` tells of comes after it.
        stop_on: codes of notices upon which the training ends, for instance `diverged`. It ends in
            any case when a controller has ended the session.
        **described: in place of parts of `description`, for instance `controllers=[...]`. With
            `total_steps` the schedule is that of so many updates, however many the training makes.

    Raises:
        TypeError: an open session was given together with a description, or one code in place of a
            collection.
    """

    def __init__(
        self,
        session: str | Session,
        *,
        client: Client | None = None,
        save_on: Collection[str] = ("large_change",),
        stop_on: Collection[str] = (),
        **described: Unpack[Description],
    ) -> None:
        if isinstance(session, Session) and described:
            raise TypeError(
                f"session {session.name} is open, so {', '.join(described)} would say nothing: "
                "pass its name instead, or leave them out"
            )
        self._given = session
        self._client = client
        self._save_on, self._stop_on = names(save_on, "save_on"), names(stop_on, "stop_on")
        self._described = described
        self._heard: list[Notice] = []
        self._saves = self._stops = False
        self._evaluations = 0  # that are going on: one for each data set, in one for all
        self._is_epoch_over = False
        self._followed: Session | None = None  # whose notices are heard
        self._own: Session | None = None  # opened here, and so closed here
        self._step: int | None = None  # the one that is being trained
        self._lr: TrainerLR

    def schedule(
        self, args: TrainingArguments, optimizer: Optimizer, num_training_steps: int
    ) -> TrainerLR:
        """Open the session, on all ranks, and make the scheduler that follows it.

        Raises:
            ConflictError: the session has another description than the arguments give now.
            GroupError: optimizer and session do not fit.
        """
        self.leave()  # a training that failed, and is tried again within `train()`
        session = self._opened(args, optimizer, num_training_steps)
        if session is not self._followed:
            session.on_notice(self._heard.append)
        self._followed = session
        self._lr = TrainerLR(optimizer, session)
        return self._lr

    def _opened(self, args: TrainingArguments, optimizer: Optimizer, steps: int) -> Session:
        if isinstance(self._given, Session):
            return self._given
        self._client = self._client or Client()
        steps = self._described.get("total_steps") or steps
        described = {**description(args, optimizer, steps), **self._described}
        try:
            self._own = open_session(self._client, self._given, **described)
        except ConflictError as error:
            raise _with_advice(error) from None
        return self._own

    def leave(self) -> None:
        """Be in no training; idempotent. What is measured from here on is of no step."""
        self._step = None
        own, self._own = self._own, None
        if own is not None:
            own.close()  # which waits for some seconds, and says what was lost

    # -- what the Trainer calls ------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stand at the Trainer's step, in an attempt of its own."""
        lr = kwargs.get("lr_scheduler")
        if not isinstance(lr, TrainerLR):
            raise TypeError(
                f"the Trainer's scheduler is a {type(lr).__name__}: make it a PacesetterTrainer, "
                "or derive from PacesetterTrainerMixin and its class, and give it no scheduler"
            )
        self._saves = self._stops = False
        start = lr.session.info.start_step
        if lr.last_epoch == start:
            # Nothing was loaded, or nothing was trained. That may be a job that begins again.
            lr.load_state_dict({"last_epoch": start + state.global_step})
        if state.is_world_process_zero:
            logger.info(
                "session %s: attempt %d, from step %d on",
                lr.session.name,
                lr.session.attempt,
                lr.last_epoch,
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hold the values of the step that is trained now."""
        self._lr.advance()
        self._step = self._lr.last_epoch
        self._obey(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on at once, so that a checkpoint can be saved ahead of a change."""
        self._go_on(args, state, control, kwargs["train_dataloader"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Know that an epoch is to end."""
        self._is_epoch_over = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on, if the Trainer does not log or evaluate now."""
        self._is_epoch_over = True
        self._go_on(args, state, control, kwargs["train_dataloader"])

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what was measured; evaluations are logged too."""
        if self._step is None:
            return
        if state.is_world_process_zero:
            self._lr.session.report(self._step, **_metrics(kwargs["logs"]))
        self._go_on(args, state, control, kwargs["train_dataloader"])

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember that a checkpoint was saved."""
        self._saves = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Deliver what was reported; a server that is away then does not fail the training."""
        self.leave()
        if self._lr.session is self._given and state.is_world_process_zero:
            self._lr.session.deliver()

    @contextmanager
    def evaluating(self, trainer: Any) -> Iterator[None]:
        """Go on after an evaluation, once all its data sets are reported."""
        self._evaluations += 1
        try:
            yield
        finally:
            self._evaluations -= 1
        if self._step is not None and not self._evaluations:
            self._take_up(trainer.state, trainer.control)

    # -- small parts -----------------------------------------------------------------------------

    def _go_on(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, loader: Any
    ) -> None:
        if not self._is_measuring(args, state, control, loader):
            self._take_up(state, control)

    def _is_measuring(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, loader: Any
    ) -> bool:
        """Whether the Trainer is still to log or to evaluate at this step."""
        if control.should_log or control.should_evaluate or self._evaluations:
            return True
        if self._is_epoch_over or IntervalStrategy.EPOCH not in (
            args.logging_strategy,
            args.eval_strategy,
        ):
            return False
        return float(state.epoch).is_integer() if has_length(loader) else _has_given_all(loader)

    def _take_up(self, state: TrainerState, control: TrainerControl) -> None:
        """Advance, so that the Trainer can still save or stop before the next update."""
        if not control.should_training_stop:
            try:
                self._lr.advance()
            except SessionFinishedError as error:
                self._say(state, f"the training ends: {error}")
                self._stops = True
        self._obey(state, control)

    def _obey(self, state: TrainerState, control: TrainerControl) -> None:
        for notice in self._heard:
            self._say(state, f"step {notice.step}: {notice.code}: {notice.message}")
            self._saves = self._saves or notice.code in self._save_on
            self._stops = self._stops or notice.code in self._stop_on
        self._heard.clear()
        control.should_save = control.should_save or self._saves
        control.should_training_stop = control.should_training_stop or self._stops

    def _say(self, state: TrainerState, text: str) -> None:
        if state.is_world_process_zero:
            logger.warning("session %s, %s", self._lr.session.name, text)


class PacesetterTrainerMixin:
    """Makes any Trainer follow the session of its `PacesetterCallback`.

    ```python
    class Mine(PacesetterTrainerMixin, SFTTrainer): ...
    ```

    An optimizer of your own is given as `optimizers=(optimizer, None)`.
    """

    args: Any
    callback_handler: Any
    is_deepspeed_enabled: Any
    lr_scheduler: Any
    optimizer: Any
    _created_lr_scheduler: Any

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> TrainerLR:
        """What the Trainer calls before it trains, once the optimizer is there.

        Raises:
            TypeError: there is no `PacesetterCallback`, or a scheduler was given besides.
            UnsupportedSchedulerError: DeepSpeed would step it.
        """
        if self.is_deepspeed_enabled:
            raise UnsupportedSchedulerError(
                "DeepSpeed steps its scheduler by itself: train without it, or leave the schedule "
                "to its configuration"
            )
        if self.lr_scheduler is None:
            callback = self._callback()
            driven = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = callback.schedule(self.args, driven, num_training_steps)
            self._created_lr_scheduler = True
        if not isinstance(self.lr_scheduler, TrainerLR):
            raise TypeError(
                f"the Trainer was given a {type(self.lr_scheduler).__name__}: pass "
                "optimizers=(optimizer, None), so that the session drives it"
            )
        return self.lr_scheduler

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer does; however that ends, what is measured after it is of no step."""
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc] # the Trainer's
        finally:
            for callback in self._callbacks():
                callback.leave()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer does; then what was measured is all reported, and decided upon."""
        evaluate = super().evaluate  # type: ignore[misc] # the Trainer's
        if not self._callbacks():
            return evaluate(*args, **kwargs)
        with self._callback().evaluating(self):
            return evaluate(*args, **kwargs)

    def _callbacks(self) -> list[PacesetterCallback]:
        callbacks: Iterable[TrainerCallback] = self.callback_handler.callbacks
        return [each for each in callbacks if isinstance(each, PacesetterCallback)]

    def _callback(self) -> PacesetterCallback:
        found = self._callbacks()
        if len(found) != 1:
            raise TypeError(
                f"the Trainer has {len(found)} PacesetterCallbacks: pass one, as "
                'callbacks=[PacesetterCallback("run-42")]'
            )
        return found[0]


class PacesetterTrainer(PacesetterTrainerMixin, Trainer):
    """`transformers.Trainer`, whose learning rates are a session's; see `PacesetterCallback`."""


def description(
    args: TrainingArguments, optimizer: Optimizer, num_training_steps: int
) -> dict[str, Any]:
    """The session that trains as these arguments do: `lr_scheduler_type`, its warmup, its keywords.

    Args:
        args: of the Trainer.
        optimizer: whose learning rates are the bases; a group for each param group if they differ.
        num_training_steps: how many updates the training makes.

    Returns:
        Keywords of `Client.session`.
    """
    kind = SchedulerType(args.lr_scheduler_type).value
    more: dict[str, Any] = {**(args.lr_scheduler_kwargs or {})}  # type: ignore[dict-item] # parsed
    described: dict[str, Any] = {**_bases(optimizer), "total_steps": num_training_steps}
    if kind in _CONTROLLERS:
        metric = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        controller = {"kind": _CONTROLLERS[kind], "metric": metric, **more}
        return {**described, "schedule": {"kind": "constant"}, "controllers": [controller]}
    lengths = {
        "num_warmup_steps": args.get_warmup_steps(num_training_steps),
        "num_training_steps": num_training_steps,
    }
    return {**described, "schedule": {"kind": f"hf.{kind}", **lengths, **more}}


_CONTROLLERS = {"reduce_lr_on_plateau": "torch.ReduceLROnPlateau", "greedy": "hf.GreedyLR"}
_NO_METRICS = {"epoch", "learning_rate", "num_input_tokens_seen"}
_TIMES = re.compile(
    r"(train|eval(_.+)?)_(runtime|(samples|steps|tokens)_per_second"
    r"|model_preparation_time|jit_compilation_time)"
)


def _bases(optimizer: Optimizer) -> dict[str, Any]:
    groups = optimizer.param_groups
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if len(set(rates)) == 1:
        return {"base_lr": rates[0]}
    named = zip(group_names(groups), rates, strict=True)
    return {"groups": {name: {"base_lr": rate} for name, rate in named}}


def _metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """What of a line of the log was measured at its step."""
    if "total_flos" in logs:  # the last line, which sums up the whole training
        return {}
    return measured(
        {
            name: value
            for name, value in logs.items()
            if name not in _NO_METRICS and not _TIMES.fullmatch(name)
        }
    )


def _has_given_all(loader: Any) -> bool:
    """Whether the data of unknown length that is trained on is at its end.

    Accelerate knows, since it reads one batch ahead. Of a loader that it has not prepared nobody
    does, and decisions come one update later.
    """
    # Not of the loader itself: in an epoch that is resumed, another one is in use.
    state = getattr(loader, "gradient_state", None)
    return state is not None and (not state.in_dataloader or state.end_of_dataloader)


def _with_advice(error: ConflictError) -> ConflictError:
    if error.code != "session_exists":
        return error
    return ConflictError(
        f"{error.detail} The arguments of the Trainer describe it; where only the number of "
        "updates differs (another data set, or a batch size that auto_find_batch_size has found), "
        "pass total_steps=... to the PacesetterCallback.",
        status=error.status,
        code=error.code,
        problem=error.problem,
    )
