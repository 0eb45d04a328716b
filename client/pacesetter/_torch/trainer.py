"""The scheduler that Hugging Face's Trainer steps; it does not depend on transformers."""

from __future__ import annotations

from typing import Any

from pacesetter._errors import PacesetterError, ResumeError, StateMismatchError
from pacesetter._reports import Scalar
from pacesetter._session import core_of
from pacesetter._torch.deferred import DeferredLR

_WITH_THE_TRAINER = (
    "With the Trainer: train(resume_from_checkpoint=...) loads a checkpoint; "
    "PacesetterCallback(..., resume='restart') begins again; and "
    "PacesetterCallback('another-name', continues='the-old-one') goes on from a checkpoint for "
    "longer or at another rate"
)


class TrainerLR(DeferredLR):
    """A `RemoteLR` as the Trainer needs it: `step()` is called before a step is evaluated.

    So `step()` only says that an update was made; `PacesetterCallback` has it `advance()` once what
    was measured is reported. A controller that sees an evaluation then decides before the very next
    update, as the Trainer's own `reduce_lr_on_plateau` does.
    """

    _has_loaded = False

    def step(self, metrics: Scalar | None = None) -> None:
        """Note that an update was made.

        Raises:
            PacesetterError: The update before was never followed by `advance()`: the callback is
                missing.
        """
        if self._due:
            raise PacesetterError(
                "the learning rate was not advanced since the last update: keep the "
                "PacesetterCallback among the Trainer's callbacks"
            )
        super().step(metrics)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a checkpoint's step, as `RemoteLR` does; the Trainer calls it."""
        try:
            super().load_state_dict(state_dict)
        except StateMismatchError as error:
            raise StateMismatchError(f"{error}. {_WITH_THE_TRAINER}") from None
        self._has_loaded = True

    def begin(self, trained: int, *, again: bool) -> None:
        """Settle where the training begins, before its first update; `PacesetterCallback` calls it.

        Args:
            trained: How many updates the Trainer's checkpoint has seen.
            again: Whether the Trainer has trained the session before, and begins it once more.

        Raises:
            ResumeError: The session was trained before, or must continue another, and no checkpoint
                was loaded.
        """
        if not self._has_loaded:
            try:
                self._begin_at(core_of(self.session).begins_at, trained, again=again)
            except ResumeError as error:
                raise ResumeError(f"{error}. {_WITH_THE_TRAINER}") from None
        # The checkpoint of another session's optimizer has brought its bases.
        self._take_bases(anew=True)

    def _begin_at(self, start: int, trained: int, *, again: bool) -> None:
        core = core_of(self.session)
        if trained:  # according to a checkpoint that has no scheduler
            self.load_state_dict({"last_epoch": self.session.info.start_step + trained})
        elif not core.is_to_branch and core.lacks_checkpoint:
            raise ResumeError(
                f"session {self.session.name} begins at step {start}, where it goes on from"
                " another: load a checkpoint of that step or a later one"
            )
        elif again and self._restarts.lived:
            self.restart(start)
        elif not self._begun:
            self._begin()
            with self._moving_to(start):
                self._stand_at(start)  # in the attempt that it is in now
        else:
            self._catch_up()
