"""The number of samples in one step of a training, as its session is told."""

from __future__ import annotations

from collections.abc import Callable

from pacesetter._session import core_of
from pacesetter._torch.relay import SessionRelay


class BatchSize:
    """The batch size of a training, and whether the server must be told of it.

    Args:
        relay: The relay to the session to tell.
        size: Samples in one step, over all ranks together; None where no job has said.

    Attributes:
        size: As above, or as it was last stated.
        told: Whether the server has been told, as far as this rank knows.
    """

    def __init__(self, relay: SessionRelay, size: int | None) -> None:
        self._relay = relay
        self.size = size
        self.told = size is None

    def change(self, size: int) -> None:
        """Tell the server of another size now; all ranks call it."""
        self._relay.resize(size)
        self.size, self.told = size, True

    def tell(self, due: Callable[[], bool]) -> bool:
        """Tell the server of the size if it was not told yet and it is due; all ranks call it.

        Returns:
            Whether the server was told now, on all ranks alike. The first rank decides: it alone
            knows whether the server has answered yet, and what a restart has told it.
        """
        size, session = self.size, self._relay.session
        assert size is not None  # noqa: S101 - else it was told

        def tell() -> bool:
            if not self.told and core_of(session).met and due():
                session.resize(size)
                self.told = True
            return self.told

        return self._relay.decide(tell)
