"""The schedulers of a session: where they stand, and which are told when it goes back."""

from __future__ import annotations

import weakref
from typing import Protocol

from pacesetter._errors import PacesetterError


class Walker(Protocol):
    """A scheduler, as far as its session knows it."""

    @property
    def position(self) -> int:
        """The step that it stands at."""
        ...

    def went_back(self, step: int) -> None:
        """Move to the step that another scheduler took the session back to."""


class Walkers:
    """Knows the schedulers of one session, and keeps none of them alive."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Walker] = weakref.WeakSet()
        self._newest: weakref.ref[Walker] | None = None
        self._left_at: int | None = None

    @property
    def position(self) -> int | None:
        """The step at which the last scheduler stands, or stood when it was deleted.

        A scheduler that is built anew goes on there; None if there was none in this process.
        """
        walker = None if self._newest is None else self._newest()
        return self._left_at if walker is None else walker.position

    def lead(self, walker: Walker) -> None:
        """Note that a scheduler walks the session from now on."""
        self._newest = weakref.ref(walker)
        self._left_at = None
        self.join(walker)

    def join(self, walker: Walker) -> None:
        """Add a scheduler, which is told when another one takes the session back."""
        self._all.add(walker)

    def leave(self, walker: Walker, step: int) -> None:
        """Note where a scheduler stood that is being deleted."""
        if self._newest is not None and self._newest() in {None, walker} and self._left_at is None:
            self._left_at = step

    def forget_gone(self) -> None:
        """Forget a deleted scheduler: the next one begins where the session was sent."""
        if self._newest is not None and self._newest() is None:
            self._newest = self._left_at = None

    def go_back(self, step: int, *, by: Walker | None) -> None:
        """Tell all schedulers that the session went back, except the one that took it there.

        Raises:
            PacesetterError: One of them could not follow; all were told.
        """
        failed: PacesetterError | None = None
        for walker in list(self._all):
            if walker is not by:
                try:
                    walker.went_back(step)
                except PacesetterError as error:
                    failed = failed or error
        if failed is not None:
            raise failed
