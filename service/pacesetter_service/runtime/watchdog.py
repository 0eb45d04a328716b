"""Whether a thread makes progress: seen from outside, without asking the thread."""

from time import monotonic


class Progress:
    """How long one thread has worked without finishing anything; readable from any thread."""

    def __init__(self) -> None:
        self._since: float | None = None

    def made(self) -> None:
        """Note, on the thread itself, that it starts to work or has finished something."""
        self._since = monotonic()

    def rests(self) -> None:
        """Note, on the thread itself, that it has nothing to do."""
        self._since = None

    @property
    def seconds_without(self) -> float:
        """For how many seconds it has worked without finishing anything; 0 while it rests."""
        since = self._since
        return 0.0 if since is None else monotonic() - since
