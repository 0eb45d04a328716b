"""Notices: what the server wants a trainer to know when it reaches a step."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

REMEMBERED = 1024
WARNINGS = {"roll_back", "diverged", "rate_deviated"}

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class Notice:
    """A hint to the trainer of a session.

    Attributes:
        session: whose trainer.
        step: the first step that it is about.
        code: what it is, for programs: `roll_back`, `diverged`, `plateaued`, `at_floor`,
            `switched`, `finished`, `large_change`, or what a newer server may say.
        message: what it is, for people.
    """

    session: str
    step: int
    code: str
    message: str


OnNotice: TypeAlias = Callable[[Notice], object]


class Board:
    """Hands each notice over once: to those who listen, else to the log."""

    def __init__(self, listener: OnNotice | None = None) -> None:
        self._listeners = [listener] if listener is not None else []
        self._known: dict[Notice, None] = {}
        self._untold: deque[Notice] = deque()

    def listen(self, listener: OnNotice) -> None:
        """Have a function called with each notice from now on."""
        self._listeners.append(listener)

    def tell(self, notices: Iterable[Notice], *, log: bool = True) -> None:
        """Hand over what is new. What a listener raises is raised; the others come next time.

        Args:
            notices: of the window that the trainer takes up.
            log: those that nobody listens to.
        """
        for notice in notices:
            if notice not in self._known:
                self._known[notice] = None
                self._untold.append(notice)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        while self._untold:
            notice = self._untold.popleft()
            if log and not self._listeners:
                log_notice(notice)
            for listener in self._listeners:
                listener(notice)


def log_notice(notice: Notice) -> None:
    """Write a notice to the log: for who listens, and would have it there as well."""
    level = logging.WARNING if notice.code in WARNINGS else logging.INFO
    # Some of it was written by people: it is to stay one line.
    text = "".join(each if each.isprintable() else " " for each in notice.message)
    logger.log(level, "session %s, step %d: %s: %s", notice.session, notice.step, notice.code, text)
