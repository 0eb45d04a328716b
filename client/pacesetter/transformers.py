"""Hugging Face's `Trainer` with a session: its learning rates, its metrics, its checkpoints.

transformers is imported here and nowhere else.
"""

# ruff: noqa: ANN401, ARG002 - a callback has the Trainer's signatures

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SchedulerType, has_length

from pacesetter._attempts import checked_resume
from pacesetter._client import Client
from pacesetter._errors import ConflictError, SessionFinishedError, UnsupportedSchedulerError
from pacesetter._groups import bases_of, described_bases
from pacesetter._logs import measured
from pacesetter._names import names
from pacesetter._notices import Notice
from pacesetter._session import Session, core_of
from pacesetter._torch.trainer import TrainerLR
from pacesetter._trials import Naming, name_of, one_for_all
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


class PacesetterCallback(TrainerCallback):
    """Makes a Trainer follow a session: give it to a `PacesetterTrainer`.

    ```python
    trainer = PacesetterTrainer(model, args, callbacks=[PacesetterCallback("run-42")], ...)
    ```

    A session that does not exist is created with the schedule that the arguments describe (see
    `description`), so that the Trainer trains as it did before. What the Trainer logs is reported
    at the step that it was measured at: `loss`, `grad_norm`, `eval_loss` and all other numbers
    except the Trainer's own times and counts. The first process reports for all, since the Trainer
    has taken the mean.

    `train(resume_from_checkpoint=...)` opens an attempt at the checkpoint's step. A job that its
    launcher has started again begins again without one, and so does a second `train()`; another job
    gets a `ResumeError` before its first update, see `resume`. To train longer or at another rate
    from a checkpoint, create a session that `continues` the old one:

    ```python
    callbacks = [PacesetterCallback("run-43", continues="run-42")]
    PacesetterTrainer(model, args, callbacks=callbacks, ...).train(resume_from_checkpoint=True)
    ```

    Args:
        session: The session's name, or an open session. For the trials of a search, a template of
            their names, such as `"sweep-{run}"` with the Trainer's own name of the trial, or
            `"sweep-{trial.number}"`; or a function of the trial, which is None for a training that
            is not a trial.
        client: The connection; by default a new `Client()`.
        resume: What to do if the session was trained before and no checkpoint is loaded: `"error"`,
            `"restart"` or `"continue"`, see `Client.session`.
        continues: The session whose checkpoint is loaded, where this one must go on from there as
            the arguments now say; see `Client.session`.
        save_on: Codes of notices upon which a checkpoint is saved; the change that a `large_change`
            announces comes after that.
        stop_on: Codes of notices upon which the training ends, for instance `diverged`. It ends in
            any case when a controller has ended the session.
        **described: In place of parts of `description`, for instance `controllers=[...]`. With
            `total_steps`, the schedule is for this many updates, however many the training makes. A
            group in `groups` without a `base_lr` gets that of the param group of its name.

    Raises:
        TypeError: An open session was given together with arguments for opening one, or one code in
            place of a collection.
        ValueError: There is no such `resume`.
    """

    def __init__(
        self,
        session: Naming | Session,
        *,
        client: Client | None = None,
        resume: str = "error",
        continues: str | None = None,
        save_on: Collection[str] = ("large_change",),
        stop_on: Collection[str] = (),
        **described: Unpack[Description],
    ) -> None:
        said = [*described, *["resume"] * (resume != "error"), *["continues"] * bool(continues)]
        if isinstance(session, Session) and said:
            raise TypeError(
                f"session {session.name} is open, so {', '.join(said)} would say nothing: "
                "pass its name instead, or leave them out"
            )
        self._given = session
        self._client = client
        self._resume, self._continues = checked_resume(resume), continues
        self._save_on, self._stop_on = names(save_on, "save_on"), names(stop_on, "stop_on")
        self._described = described
        self._heard: list[Notice] = []
        self._saves = self._stops = False
        self._evaluations = 0  # evaluations under way: one for each data set, within one for all
        self._is_epoch_over = False
        self._followed: Session | None = None  # the session whose notices are heard
        self._own: Session | None = None  # the session opened here, and so closed here
        self._trained: dict[str, Any] = {}  # the trial of each session that was begun here
        self._trial: Any = None
        self._is_again = False
        self._step: int | None = None  # the step that is being trained
        self._lr: TrainerLR

    def schedule(
        self,
        args: TrainingArguments,
        optimizer: Optimizer,
        num_training_steps: int,
        *,
        trial: Any = None,
        run: str | None = None,
    ) -> TrainerLR:
        """Open the session, on all ranks, and make the scheduler that follows it.

        Args:
            args: The Trainer's arguments.
            optimizer: The optimizer to drive.
            num_training_steps: How many updates the training makes.
            trial: The trial of a search, if the training is one.
            run: The Trainer's name for that trial.

        Raises:
            ConflictError: The session has another description than the arguments now give.
            GroupError: Optimizer and session do not fit.
            ValueError: It is a trial, and all trials would get one session name.
        """
        self.leave()  # a training that failed, and is retried within `train()`
        if isinstance(self._given, Session):
            if trial is not None:
                raise ValueError(one_for_all(self._given.name))
            session = self._given
        else:
            name = name_of(self._given, trial, run)
            self._own = session = self._opened(name, args, optimizer, num_training_steps)
        if session is not self._followed:
            session.on_notice(self._heard.append)
        self._followed = session
        self._trial = trial
        self._is_again = self._was_trained_here(session)
        self._lr = TrainerLR(optimizer, session)
        return self._lr

    def _was_trained_here(self, session: Session) -> bool:
        """Return whether this process has begun this training before, as the same run."""
        if self._resume == "continue":
            return False
        core, name = core_of(session), session.name
        moved = core.walkers.position not in {None, core.begins_at}
        return moved or (name in self._trained and self._trained[name] is self._trial)

    def _opened(
        self, name: str, args: TrainingArguments, optimizer: Optimizer, steps: int
    ) -> Session:
        self._client = self._client or Client()
        steps = self._described.get("total_steps") or steps
        described = {**description(args, optimizer, steps), **self._described}
        if (groups := self._described.get("groups")) is not None:
            described.pop("base_lr", None)  # one rate for all
            described |= described_bases(optimizer, groups)
        options: dict[str, Any] = {"resume": self._resume, "continues": self._continues}
        try:
            return open_session(self._client, name, **options, **described)
        except ConflictError as error:
            raise _with_advice(error, name) from None

    def leave(self) -> None:
        """Leave the training; idempotent. What is measured from here on belongs to no step."""
        self._step = None
        own, self._own = self._own, None
        if own is not None:
            own.close()  # it waits for some seconds, and logs what was lost

    # -- what the Trainer calls ------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move to the Trainer's step, in an attempt of this training.

        Raises:
            TypeError: The Trainer has another scheduler.
            ResumeError: The session was trained before, and the program did not say what to do
                then.
        """
        lr = kwargs.get("lr_scheduler")
        if not isinstance(lr, TrainerLR):
            raise TypeError(
                f"the Trainer's scheduler is a {type(lr).__name__}: make it a PacesetterTrainer, "
                "or derive from PacesetterTrainerMixin and its class, and give it no scheduler"
            )
        self._saves = self._stops = False
        lr.begin(state.global_step, again=self._is_again)
        self._trained[lr.session.name] = self._trial
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
        """Go on immediately, so that a checkpoint can be saved ahead of a change."""
        self._go_on(args, state, control, kwargs["train_dataloader"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record that the epoch has not ended yet."""
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
        if state.is_world_process_zero:
            core_of(self._lr.session).end()
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
        """Take up the next step, unless the Trainer will still log or evaluate at this one."""
        if control.should_log or control.should_evaluate or self._evaluations:
            return
        by_epoch = IntervalStrategy.EPOCH in (args.logging_strategy, args.eval_strategy)
        if self._is_epoch_over or not by_epoch or not _is_at_end(state, loader):
            self._take_up(state, control)

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

    Pass an optimizer of your own as `optimizers=(optimizer, None)`.
    """

    args: Any
    callback_handler: Any
    hp_search_backend: Any
    is_deepspeed_enabled: Any
    lr_scheduler: Any
    optimizer: Any
    _created_lr_scheduler: Any
    _get_output_dir: Any

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> TrainerLR:
        """Create the scheduler once the optimizer exists; the Trainer calls this before it trains.

        Raises:
            TypeError: There is no `PacesetterCallback`, or a scheduler was given too.
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
            trial, run = self._trial_and_run()
            self.lr_scheduler = callback.schedule(
                self.args, driven, num_training_steps, trial=trial, run=run
            )
            self._created_lr_scheduler = True
        if not isinstance(self.lr_scheduler, TrainerLR):
            raise TypeError(
                f"the Trainer was given a {type(self.lr_scheduler).__name__}: pass "
                "optimizers=(optimizer, None), so that the session drives it"
            )
        return self.lr_scheduler

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does; however that ends, later measurements belong to no step."""
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc] # the Trainer's
        finally:
            for callback in self._callbacks():
                callback.leave()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the Trainer does; then report what was measured, and await the decisions."""
        evaluate = super().evaluate  # type: ignore[misc] # the Trainer's
        if not self._callbacks():
            return evaluate(*args, **kwargs)
        with self._callback().evaluating(self):
            return evaluate(*args, **kwargs)

    def _trial_and_run(self) -> tuple[Any, str | None]:
        """Return the trial that this training is, if any, and the search's name for it."""
        trial = getattr(self, "_trial", None)
        if trial is None or self.hp_search_backend is None:
            return trial, None
        return trial, Path(self._get_output_dir(trial)).name

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
    """Return the session of these arguments: `lr_scheduler_type`, its warmup, its keywords.

    Args:
        args: The Trainer's arguments.
        optimizer: The optimizer whose learning rates are the bases, with a group for each param
            group if they differ.
        num_training_steps: How many updates the training makes.

    Returns:
        Keywords of `Client.session`.
    """
    kind = SchedulerType(args.lr_scheduler_type).value
    more: dict[str, Any] = {**(args.lr_scheduler_kwargs or {})}  # type: ignore[dict-item] # parsed
    described: dict[str, Any] = {**bases_of(optimizer), "total_steps": num_training_steps}
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


def _metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return those values of a log line that were measured at its step."""
    if "total_flos" in logs:  # the last line, which sums up the whole training
        return {}
    named = [name for name in logs if name not in _NO_METRICS and not _TIMES.fullmatch(name)]
    return measured({name: logs[name] for name in named})


def _is_at_end(state: TrainerState, loader: Any) -> bool:
    """Return whether an epoch was trained to its end.

    Where the epoch's length is unknown, Accelerate knows, since it reads one batch ahead. The end
    of a loader that Accelerate has not prepared is not known, and decisions come one update later.
    """
    if has_length(loader):
        return float(state.epoch).is_integer()
    # Not the loader's own attribute: in a resumed epoch, another loader is in use.
    gradients = getattr(loader, "gradient_state", None)
    return gradients is not None and (not gradients.in_dataloader or gradients.end_of_dataloader)


def _with_advice(error: ConflictError, name: str) -> ConflictError:
    if error.code != "session_exists":
        return error
    return error.saying(
        f"{error.detail.rstrip('.')}. The arguments of the Trainer describe it. To train longer or"
        " at another rate from a checkpoint, pass PacesetterCallback('another-name',"
        f" continues={name!r}) and "
        "train(resume_from_checkpoint=...). Where only the number of updates differs (another data "
        "set, or a batch size that auto_find_batch_size has found), pass total_steps=... to the "
        "PacesetterCallback. For trials of a search, pass a template such as 'sweep-{run}'."
    )
