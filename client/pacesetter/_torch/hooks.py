"""What an optimizer reports through torch's public hooks, so that it need not be patched."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.hooks import RemovableHandle

    from pacesetter._torch.walking import Walking


def bare(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside a wrapper such as Accelerate's, which has no hooks of its own."""
    inner = getattr(optimizer, "optimizer", None)
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and isinstance(inner, Optimizer):
        optimizer, inner = inner, getattr(inner, "optimizer", None)
    return optimizer


_ON_LOAD, _BEFORE_STEP, _AFTER_STEP = "load_state_dict_post", "step_pre", "step_post"

_told: weakref.WeakKeyDictionary[Optimizer, weakref.ref[Hooks]] = weakref.WeakKeyDictionary()
"""The hooks that each optimizer calls; the scheduler that was built last drives it."""


def is_driven(optimizer: Optimizer) -> bool:
    """Return whether a scheduler of a session has driven an optimizer in this process."""
    return bare(optimizer) in _told


class Hooks:
    """Tells a scheduler when its optimizer is loaded, and of updates on two occasions.

    The first occasion is the first update, to know whether there was any before the first
    `scheduler.step()`. The second is before each update, as long as the session has groups that the
    optimizer does not have yet, so that an added one has its rate at its very first update. The
    optimizer keeps no scheduler alive.

    Attributes:
        stepped: Whether the optimizer has made an update; None once that no longer matters.
    """

    stepped: bool | None

    def __init__(self, scheduler: Walking, *, awaits: bool) -> None:
        optimizer = bare(scheduler.optimizer)
        mine = weakref.ref(scheduler)

        def write_again(*_: Any) -> None:  # noqa: ANN401 - of each hook
            if (found := mine()) is not None:
                found.write_again()

        def take_in(*_: Any) -> None:  # noqa: ANN401 - of each hook
            if (found := mine()) is not None and found.has_more_groups:
                found.write_again()

        self._optimizer = weakref.ref(optimizer)
        self._handles: dict[str, RemovableHandle] = {}
        self._hear(optimizer, _ON_LOAD, write_again)
        if not optimizer.state:
            self._hear(optimizer, _AFTER_STEP, self._note_update)
        if awaits:
            self._hear(optimizer, _BEFORE_STEP, take_in)
        self.stepped = False if _AFTER_STEP in self._handles else None
        self._on_drop = weakref.finalize(scheduler, self.remove)
        self._on_drop.atexit = False

    def _hear(self, optimizer: Optimizer, occasion: str, hook: Callable[..., None]) -> None:
        # An optimizer that skipped torch's constructor has no hooks.
        with contextlib.suppress(AttributeError):
            self._handles[occasion] = getattr(optimizer, f"register_{occasion}_hook")(hook)

    def _hear_no_more(self, occasion: str) -> None:
        if (handle := self._handles.pop(occasion, None)) is not None:
            handle.remove()

    def displace(self) -> None:
        """Take the place of an older scheduler of this optimizer, which is then told no more."""
        optimizer = self._optimizer()
        assert optimizer is not None  # noqa: S101 - its scheduler holds it
        before = _told.get(optimizer)
        if before is not None and (older := before()) is not None:
            older.remove()
        _told[optimizer] = weakref.ref(self)

    def was_stepped(self) -> bool:
        """Return False if the optimizer has made no update yet, and True if it may have made one.

        It is known at the first call only, and only where the optimizer could be watched.
        """
        stepped, self.stepped = self.stepped, None
        self._hear_no_more(_AFTER_STEP)
        return stepped is not False

    def await_no_more(self) -> None:
        """Watch no more updates: the optimizer has all groups."""
        self._hear_no_more(_BEFORE_STEP)

    def remove(self) -> None:
        """Remove the hooks."""
        for occasion in list(self._handles):
            self._hear_no_more(occasion)

    def _note_update(self, *_: Any) -> None:  # noqa: ANN401 - of each hook
        self.stepped = True
