"""What the writer is given, and what it returns: work, and the session after it."""

from dataclasses import dataclass

from pacesetter_service.core.commands import Command
from pacesetter_service.core.cost import REPLAY
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.tails import SealedTail
from pacesetter_service.store.port import Stored


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as memory holds it: committed, and never changed."""

    stored: Stored
    tail: SealedTail
    replay: float = REPLAY
    """The cost of replaying what came after the newest snapshot; `REPLAY` if it is not known."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the session of a spec, with the key of its first attempt, or find it."""

    spec: SessionSpec
    key: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Apply commands to a session, all or none."""

    name: str
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Find:
    """Bring a session into memory."""

    name: str


@dataclass(frozen=True, slots=True)
class Open:
    """Open or join an attempt of a session at a step.

    Attributes:
        name: The session's name.
        step: The first step of the attempt: that of the checkpoint.
        key: The key that all ranks of the restart share: the same key gives the same attempt.
        actor: Who opens it.
        drop_actions: Whether operators' orders for the step and later ones are dropped.
        batch_size: Samples in one step from now on, if the trainer says so.
    """

    name: str
    step: int
    key: str
    actor: str = "anonymous"
    drop_actions: bool = False
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """Create a session that shares the past of another one up to a step; `key` as for `Create`."""

    source: str
    spec: SessionSpec
    step: int
    actor: str = "anonymous"
    key: str = ""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Reopen the sealed steps that no trainer holds, for changes."""

    name: str
    actor: str = "anonymous"
    reason: str = ""


Alone = Open | Fork | TakeBack
"""Work that reads the committed record, so no other job of its batch may be uncommitted."""

Work = Create | Change | Find | Open | Fork | TakeBack


@dataclass(frozen=True, slots=True)
class Outcome:
    """The session after the work.

    Attributes:
        entry: The session.
        created: Whether the work created it, or its attempt.
        horizon_before: Its horizon before the work, if that matters to the caller.
    """

    entry: Entry
    created: bool = False
    horizon_before: int | None = None
