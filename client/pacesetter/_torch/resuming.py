"""How a scheduler is saved and goes on: at a checkpoint, at an earlier step, or as a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pacesetter._core import WayBack
from pacesetter._errors import ResumeError, StateMismatchError
from pacesetter._session import core_of
from pacesetter._torch.batch_size import BatchSize
from pacesetter._torch.checkpoints import checkpoint_of
from pacesetter._torch.hooks import Hooks
from pacesetter._torch.restarts import Restarts
from pacesetter._torch.walking import Walking


class Resuming(Walking):
    """The part of a `RemoteLR` that is saved, loaded and sent back; its session's `Walker`."""

    _batch: BatchSize
    _restarts: Restarts

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as plain types that `torch.load(weights_only=True)` reads."""
        return {
            "session": self.session.name,
            "attempt": self.session.attempt,
            "revision": self.session.revision,
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": self._known_rates(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a checkpoint's step and write that step's values to the optimizer.

        Going back to steps that were handed out before is a restart of the job, see `restart`: it
        opens an attempt, unless this scheduler is at that very step. The state of a torch scheduler
        whose law the session has is accepted too: its step is taken over. One that says more than a
        step, as ReduceLROnPlateau's does, is refused: convert the scheduler, see `from_torch`. A
        fork accepts its parent's state of the step where it branched off; one that `continues` its
        parent branches off at the state's step.

        Raises:
            StateMismatchError: The state belongs to another session, to a step that the session
                does not share with that one, has no step, or says more than a step; on all ranks
                alike.
            StaleAttemptError: A later restart of the job has taken over.
            PacesetterError: The attempt could not be opened; on all ranks alike.
        """
        try:
            found = checkpoint_of(state_dict, self.session.info)
        except StateMismatchError as error:
            self._relay.refuse(error)
        known = found.attempt if isinstance(found.attempt, int) else None
        way = WayBack(found.step, known=known)
        self._go_back(way, lambda: self._is_due(found.step, found.attempt))
        self._step_count = found.count

    def restart(self, step: int, *, key: str | None = None) -> None:
        """Train again from a step on, in a new attempt; all ranks call it.

        `load_state_dict` calls this; call it yourself where there is no checkpoint to load, for
        instance when a job that died before its first one begins again.

        Args:
            step: The first step that is trained again.
            key: What all ranks of the restart share, see `Session.restart`.

        Raises:
            StaleAttemptError: A later restart of the job has taken over.
            PacesetterError: The attempt could not be opened; on all ranks alike.
        """
        self._go_back(WayBack(step, key), lambda: True)

    def _is_due(self, step: int, attempt: object) -> bool:
        """Return whether going to a step of an attempt means to train it again."""
        return self._restarts.is_due(step, attempt, reached=self._reached)

    @property
    def _reached(self) -> int:
        """The step that this very scheduler would have trained next."""
        return self.last_epoch

    def _go_back(self, way: WayBack, needed: Callable[[], bool]) -> None:
        """Take the session back to a step if that is needed, and move there."""
        with self._moving_to(way.step):
            self._restarts.go_back(replace(way, batch_size=self._batch.size, by=self), needed)
            self._note_restart()
            self._stand_at(way.step)

    def went_back(self, step: int) -> None:
        """Follow the session to a step that others have taken it back to; the session calls it.

        Ranks do not follow one of them: the next step at which they meet is refused.
        """
        self._restarts.led_to = step
        if self._relay.follows:
            self._restarts.note()
            with self._moving_to(step):
                self._stand_at(step)

    @contextlib.contextmanager
    def _moving_to(self, step: int) -> Iterator[None]:
        """Stay at the present step on an error, unless the session has gone back meanwhile.

        What the optimizer holds is then of an attempt that is over. So the scheduler stands where
        the session does, without values, and refuses to go on before it is moved again.
        """
        try:
            yield
        except BaseException:
            if core_of(self.session).restarts != self._asked_in:
                self._restarts.note()
                self._restarts.led_to = step
                self._forget(step)
                self._owes = True
            raise

    def _stand_at(self, step: int) -> None:
        """Move to a step of the session as it is now, and write its values.

        On an error it has not moved.
        """
        self._writing.follow(self.session.info)
        window = self._ask(step, self._unfit(), walks=False)
        self._forget(step)
        self._write(window, step)
        self._look_soon()

    def _catch_up(self) -> None:
        """Write the values that never came, before the step is trained."""
        if self._owes:
            step = self.last_epoch
            with self._moving_to(step):
                self._stand_at(step)

    def _stranded(self) -> ResumeError | None:
        """Return why the training cannot go on where the session was taken back to."""
        if not self._owes:
            return None
        step = self.last_epoch
        return ResumeError(
            f"session {self.session.name} was taken back to step {step}, and the values of that "
            "step did not come, so an update now has another rate: load the checkpoint again, or "
            f"call scheduler.restart({step}), before you train on"
        )

    def _note_restart(self) -> None:
        """Record an attempt that was opened where this scheduler is, with its batch size."""
        if self._restarts.note():
            self._batch.told = True

    def _begin(self) -> None:
        """Settle, at the first step, how this job relates to a session that was trained before."""
        if self._restarts.lived:
            self._relay.begin(self.last_epoch, batch_size=self._batch.size)
            self._note_restart()
        self._begun = self._batch.told or self._batch.tell(lambda: True)

    @property
    def position(self) -> int:
        """The step that is trained now, or next; the session reads it."""
        led_to = self._restarts.led_to
        return self._reached if led_to is None else led_to

    def __getstate__(self) -> dict[str, Any]:
        forgotten = dict.fromkeys(("_window", "_shared", "_rows", "_held", "_last", "_hooks"))
        position = {"_start": self.last_epoch, "_index": 0, "_mark": 0}
        return {**self.__dict__, **forgotten, **position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hooks = Hooks(self, awaits=bool(self._writing.missing))
        core_of(self.session).walkers.join(self)
        self._asked_in = core_of(self.session).restarts

    def __del__(self) -> None:
        if "_hooks" in self.__dict__:  # otherwise it was never built
            core_of(self.session).walkers.leave(self, self.position)
