"""`AcceleratedRemoteLR`: a `RemoteLR` that moves when Hugging Face Accelerate updates the weights.

accelerate is imported here and nowhere else.
"""

# ruff: noqa: ANN401 - RemoteLR's keywords, typed there

from __future__ import annotations

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer  # type: ignore[import-untyped]
from accelerate.state import GradientState  # type: ignore[import-untyped]

from pacesetter._reports import Scalar
from pacesetter._session import Session
from pacesetter.torch import RemoteLR

__all__ = ["AcceleratedRemoteLR"]


class AcceleratedRemoteLR(RemoteLR):
    """Drives an optimizer that Accelerate has prepared.

    ```python
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    session = open_session(Client(), "run-42", base_lr=0.1)
    scheduler = AcceleratedRemoteLR(optimizer, session)
    accelerator.register_for_checkpointing(scheduler)
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    ```

    `step()` advances by one step where the weights were updated. It does nothing while gradients
    accumulate, nor after an update that the gradient scaler has left out. Do not prepare a plain
    `RemoteLR`: Accelerate steps what it wraps once for each process.

    Args:
        optimizer: The optimizer that `accelerator.prepare` returned.
        session: The session that the values come from.
        **options: The same as for `RemoteLR`.

    Raises:
        TypeError: The optimizer was not prepared.
    """

    # `accelerator.prepare(scheduler)` leaves it as it is, and saves and loads it with the rest.
    _is_accelerate_prepared = True  # elsewhere, a property that refuses

    def __init__(self, optimizer: AcceleratedOptimizer, session: Session, **options: Any) -> None:
        if not isinstance(optimizer, AcceleratedOptimizer):
            raise TypeError(
                f"{type(optimizer).__name__} was not prepared: call accelerator.prepare(optimizer) "
                "first, and pass what it gives"
            )
        super().__init__(optimizer, session, **options)

    def step(self, metrics: Scalar | None = None) -> None:
        """Advance by one step if the weights have been updated, else do nothing.

        Args:
            metrics: Reported first, for the update just made.
        """
        if GradientState().sync_gradients and not self.optimizer.step_was_skipped:  # type: ignore[attr-defined]
            super().step(metrics)
