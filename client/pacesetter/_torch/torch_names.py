"""What torch, its users and Accelerate read from a scheduler, under torch's names."""

from __future__ import annotations

from torch.optim.lr_scheduler import LRScheduler

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._torch.ranks import are_many


class TorchNames(LRScheduler):
    """A scheduler whose position and rates are read under torch's names.

    `LRScheduler.__init__` is left out on purpose: it patches `optimizer.step`.
    """

    base_lrs: list[float]  # type: ignore[assignment] # torch's may hold tensors
    _extra_steps: int = 0
    _last_lr: list[float]  # type: ignore[assignment] # as above

    @property
    def _step_count(self) -> int:
        return self.last_epoch + 1 + self._extra_steps

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        # Accelerate counts steps here that gradient accumulation has skipped.
        self._extra_steps = count - self.last_epoch - 1

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """Return the learning rates of the current step, one for each param group."""
        return self._last_lr

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the same as `get_last_lr()`."""
        return self._last_lr

    def _initial_step(self) -> None:
        raise UnsupportedSchedulerError(
            "RemoteLR cannot be a part of SequentialLR: make the whole sequence a session, with "
            "RemoteLR.from_torch or the schedule kind `sequence`"
        )

    _update_lr = _initial_step  # type: ignore[assignment]

    @property
    def _is_accelerate_prepared(self) -> bool:
        # Accelerate asks this of a scheduler before it wraps it.
        if are_many(None):
            raise UnsupportedSchedulerError(
                "accelerator.prepare(RemoteLR(...)) would step it once for each process: take "
                "AcceleratedRemoteLR from pacesetter.accelerate"
            )
        return False
