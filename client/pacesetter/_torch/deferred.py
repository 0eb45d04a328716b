"""A scheduler for frameworks that step it before they measure the step."""

from __future__ import annotations

from typing import Any

from pacesetter._reports import Scalar
from pacesetter.torch import RemoteLR


class DeferredLR(RemoteLR):
    """A `RemoteLR` whose `step()` only says that a step was trained; `advance()` follows it.

    In between, what was measured at that step can be reported, so that a controller that sees it
    decides before the very next step.
    """

    _stepped: int | None = None  # the last step that was said to be trained
    _goes_on = False  # its framework says where it stands

    def step(self, metrics: Scalar | None = None) -> None:
        """Note that a step was trained, and report the metric for it, if one is given."""
        if metrics is not None:
            self._report(metrics)
        self._stepped = self.last_epoch

    @property
    def _due(self) -> bool:
        """Whether the step where it stands was trained, and not yet advanced from."""
        return self._stepped == self.last_epoch

    def advance(self) -> None:
        """Write the next step's values, if a step was trained; raise what `RemoteLR.step` does."""
        if self._due:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the step that is trained next, as plain types."""
        state = super().state_dict()
        for key in ("last_epoch", "_step_count"):
            state[key] += self._due
        return state

    @property
    def _reached(self) -> int:
        return self.last_epoch + self._due

    def _forget(self, step: int) -> None:
        super()._forget(step)
        self._stepped = None  # it belonged to another position
