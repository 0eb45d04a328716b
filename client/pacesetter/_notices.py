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
        session: The session whose trainer it is for.
        step: The first step that it is about.
        code: What it is, for programs: `checkpoint`, `roll_back`, `diverged`, `plateaued`,
            `at_floor`, `switched`, `finished`, `large_change`, `rate_deviated`,
            `metric_never_seen`, `metric_stopped`, `rank_silent`, `relative_threshold`,
            `plan_over`, `left_family`, or what a newer server may say.
        message: What it is, for people.
        good_step: With `roll_back`, the last step whose measurement was good: load weights from
            before its update. None if there was none, or with any other code.
    """

    session: str
    step: int
    code: str
    message: str
    good_step: int | None = None


OnNotice: TypeAlias = Callable[[Notice], object]


class Board:
    """Delivers each notice once: to the listeners, else to the log."""

    def __init__(self, listener: OnNotice | None = None) -> None:
        self._listeners = [listener] if listener is not None else []
        self._known: dict[Notice, None] = {}
        self._untold: deque[Notice] = deque()

    def listen(self, listener: OnNotice) -> None:
        """Call a function with each notice from now on."""
        self._listeners.append(listener)

    def go_back(self, step: int) -> None:
        """Forget what was told from a step on: a trainer that repeats it is told again."""
        self._known.clear()
        self._untold = deque(notice for notice in self._untold if notice.step < step)

    def tell(self, notices: Iterable[Notice], *, log: bool = True) -> None:
        """Deliver what is new. What a listener raises is raised; the other notices come next time.

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
            self._tell_all(notice)

    def _tell_all(self, notice: Notice) -> None:
        """Call every listener, and raise what the first failing one raised.

        None may keep a notice from the others: it is delivered only once.
        """
        first: Exception | None = None
        for listener in self._listeners:
            try:
                listener(notice)
            except Exception as error:  # noqa: PERF203 - the others are called all the same
                if first is not None:
                    logger.exception("another listener to notices has failed")
                first = first or error
        try:
            if first is not None:
                raise first
        finally:
            del first  # it holds the trainer's frames, and all that is in them


def log_notice(notice: Notice) -> None:
    """Write a notice to the log: for listeners that want it there as well."""
    level = logging.WARNING if notice.code in WARNINGS else logging.INFO
    # People wrote some of it: it must stay one line.
    text = "".join(each if each.isprintable() else " " for each in notice.message)
    logger.log(level, "session %s, step %d: %s: %s", notice.session, notice.step, notice.code, text)
