"""Attempts as their opener sees them: the key that the ranks of one restart share, and claims."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from urllib.parse import quote

_LONGEST = 200


@dataclass(frozen=True)
class Claim:
    """An attempt that is to be opened when the server is back.

    Attributes:
        step: the first step that is trained again.
        key: of the attempt.
        known: the newest attempt that the job knows of. If the server knows a newer one, somebody
            has taken over, and the claim is void.
    """

    step: int
    key: str
    known: int

    def merged(self, later: Claim) -> Claim:
        """One claim for two, neither of which the server has heard of."""
        return Claim(min(self.step, later.step), self.key, max(self.known, later.known))


def new_key(restarts: int) -> str:
    """A key for the next attempt that this process opens.

    Of use where ranks open the attempt each by themselves: workers of a torchelastic job make the
    same one. A process by itself draws one, and so does the first rank of a group for all.

    torchelastic counts no restart when nodes come and go, nor on the nodes where no worker failed.
    So the size of the job is a part of it; and where it may differ between nodes, give a key.

    Args:
        restarts: how many attempts this process has opened or joined before: going back twice
            within one life of a job is two attempts.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID", "")
    size = os.environ.get("WORLD_SIZE", "1")
    # torchrun calls every job "none" that was given no name: that would join strangers.
    if run in {"", "none"} or size == "1":
        return drawn_key()
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"{quote(run, safe='')[:_LONGEST]}/{count}/{size}/{restarts}"


def drawn_key() -> str:
    """A key that nobody else has."""
    return uuid.uuid4().hex
