"""Points where a test makes the service die, wait or fail; they do nothing unless armed.

`commit.before=kill@17` ends the process, as a power failure would, when it passes that point for
the 17th time; `=pause:0.5` makes it wait 0.5 seconds, and `=fail` refuses the commit.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from pacesetter_service.core.errors import StorageUnavailableError

POINTS = {
    "commit.before": ("kill", "pause", "fail"),
    "commit.after": ("kill", "pause"),
    "answer.before": ("kill", "pause"),
}
"""The points, and what can happen at each: a commit cannot be refused once it is done."""

_ORDER = re.compile(r"(?P<point>[a-z.]+)=(?P<what>[a-z]+)(?::(?P<seconds>[0-9.]+))?@(?P<nth>\d+)")


@dataclass(slots=True)
class _Armed:
    """What happens at a point, and after how many more passes."""

    left: int
    do: Callable[[], None]


_armed: dict[str, _Armed] = {}


def reach(point: str) -> None:
    """Pass a point; nothing happens unless a test has armed it."""
    if not _armed:
        return
    found = _armed.get(point)
    if found is not None:
        found.left -= 1
        if found.left == 0:
            found.do()


def arm(orders: str) -> None:
    """Arm points: `point=kill@3`, `=pause:0.5@3` or `=fail@3`, separated by commas.

    Raises:
        ValueError: An order names an unknown point, or something that cannot be done there.
    """
    armed = {}
    for order in orders.split(","):
        found = _ORDER.fullmatch(order.strip())
        if found is None or found["what"] not in POINTS.get(found["point"], ()):
            known = "; ".join(f"{point}: {', '.join(what)}" for point, what in POINTS.items())
            raise ValueError(
                f"{order!r} is no failpoint. Say point=what@n, such as commit.before=kill@3 or"
                f" answer.before=pause:0.5@3; there are {known}"
            )
        armed[found["point"]] = _Armed(int(found["nth"]), _done(found["what"], found["seconds"]))
    _armed.clear()
    _armed.update(armed)


def _done(what: str, seconds: str | None) -> Callable[[], None]:
    if what == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if what == "pause":
        return lambda: time.sleep(float(seconds or 1.0))
    return _fail


def _fail() -> None:
    raise StorageUnavailableError("a failpoint has refused the commit")
