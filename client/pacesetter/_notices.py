"""Notices: what the server wants a trainer to know when it reaches a step."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

REMEMBERED = 1024
WARNINGS = {
    "roll_back",
    "diverged",
    "rate_deviated",
    "metric_never_seen",
    "metric_stopped",
    "rank_silent",
    "relative_threshold",
    "plan_over",
    "left_family",
}

logger = logging.getLogger("pacesetter")


@dataclass(frozen=True)
class Notice:
    """A hint to the trainer of a session.

    Attributes:
        session: Whose trainer.
        step: The first step that it is about.
        code: What it is, for programs: `checkpoint`, `roll_back`, `diverged`, `plateaued`,
            `at_floor`, `switched`, `finished`, `large_change`, `rate_deviated`,
            `metric_never_seen`, `metric_stopped`, `rank_silent`, `relative_threshold`,
            `plan_over`, `left_family`, or what a newer server may say.
        message: What it is, for people.
        good_step: With `roll_back` the last step whose measurement was good: load weights from
            before its update. None if there was none, or it says something else.
    """

    session: str
    step: int
    code: str
    message: str
    good_step: int | None = None


OnNotice: TypeAlias = Callable[[Notice], object]


class Board:
    """Hands each notice over once: to those who listen, else to the log."""

    def __init__(self, listener: OnNotice | None = None) -> None:
        self._listeners = [listener] if listener is not None else []
        self._known: dict[Notice, None] = {}
        self._untold: deque[Notice] = deque()

    def listen(self, listener: OnNotice) -> None:
        """Call a function with each notice from now on."""
        self._listeners.append(listener)

    def go_back(self, step: int) -> None:
        """Forget what was told from a step on: a trainer that repeats it hears of it again."""
        self._known.clear()
        self._untold = deque(notice for notice in self._untold if notice.step < step)

    def tell(self, notices: Iterable[Notice], *, log: bool = True) -> None:
        """Hand over what is new. What a listener raises is raised; the others come next time.

        Args:
            notices: The notices of the window that the trainer takes up.
            log: Whether to log those that have no listener.
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
