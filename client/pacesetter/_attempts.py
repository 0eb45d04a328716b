"""Keys of attempts: what the ranks of one restart share, and no other restart has."""

from __future__ import annotations

import os
import uuid
from urllib.parse import quote

_LONGEST = 200


def new_key(restarts: int) -> str:
    """A key for the next attempt that this process opens.

    All workers of a torchelastic job make the same one; a process by itself draws one.

    Args:
        restarts: how many attempts this process has opened or joined before: going back twice
            within one life of a job is two attempts.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID", "")
    # torchrun calls every job "none" that was given no name: that would join strangers.
    if run in {"", "none"}:
        return uuid.uuid4().hex
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"{quote(run, safe='')[:_LONGEST]}/{count}/{restarts}"
