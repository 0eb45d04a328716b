"""What a training tells the server through its scheduler: measurements and batch sizes."""

from __future__ import annotations

from pacesetter._reports import Scalar
from pacesetter._session import CLOSE_SECONDS, Session, core_of
from pacesetter._torch.batch_size import BatchSize
from pacesetter._torch.relay import SessionRelay


class Telling:
    """The part of a `RemoteLR` that tells the server; under torch.distributed, all ranks call it.

    Attributes:
        session: The session that is told.
    """

    session: Session
    last_epoch: int
    _relay: SessionRelay
    _metric: str | None
    _batch: BatchSize

    def resize(self, batch_size: int) -> None:
        """Tell the server the number of samples in one step from now on; all ranks call it.

        Args:
            batch_size: The samples of all ranks together, gradient accumulation included.

        Raises:
            ConflictError: The session refuses the size, or its limits refuse the rate that follows.
            ServerUnavailableError: The server was away for `max_wait` seconds; on all ranks alike.
        """
        self._batch.change(batch_size)

    def report(self, step: int, /, **metrics: Scalar) -> None:
        """Tell the server what was measured at a step, as `step(value)` does; all ranks call it.

        The scheduler's `reports` decides which ranks' values count.

        Args:
            step: The step that it was measured at.
            **metrics: See `Session.report`.
        """
        self._relay.report_all(step, metrics)

    def flush(self) -> None:
        """Deliver now all that was reported; all ranks call it, for instance after their last step.

        Raises:
            ServerUnavailableError: The server was away for `max_wait` seconds; on all ranks alike.
        """
        self._relay.flush()

    def deliver(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Deliver what was reported, trying for at most `seconds`; all ranks call it.

        This is for the end of a training, see `Session.deliver`.

        Args:
            seconds: How long to try; 0 tries once, as a time does that has passed.

        Returns:
            Whether all was delivered.
        """
        return self._relay.deliver(seconds)

    def end(self) -> None:
        """Tell the server that the training has ended by itself; see `SessionCore.end`."""
        if self._relay.leads:
            core_of(self.session).end()

    def _report(self, value: Scalar) -> None:
        if self._metric is None:
            raise TypeError(
                f"step({value!r}): session {self.session.name} has no controller, or several "
                "metrics, so the value has no name: pass metric= to RemoteLR, or call step() "
                "(an epoch is not accepted)"
            )
        self.report(self.last_epoch, **{self._metric: value})
