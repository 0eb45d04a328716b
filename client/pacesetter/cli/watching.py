"""What is looked at again and again, until the person has seen enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.live import Live

from pacesetter.cli.screen import Screen


def repeated(screen: Screen, look: Callable[[], Any], interval: float) -> None:
    """Show what a function returns, in the same place, until Ctrl-C; on no terminal just call it.

    Args:
        screen: Where it is shown.
        look: Returns what is to be seen, or prints by itself and returns None.
        interval: Seconds between two looks.
    """
    first: RenderableType | None = look()
    if first is None:
        while True:
            time.sleep(interval)
            look()
    with Live(first, console=screen.console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(first, refresh=True)
            time.sleep(interval)
            first = look()
