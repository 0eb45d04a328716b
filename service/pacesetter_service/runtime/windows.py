"""Sealed values: the newest from memory, older ones from the record."""

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.spec import MAX_VALUES
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.work import Entry
from pacesetter_service.store.store import Store

Block = NDArray[np.float64]
"""Values of a range of steps: a row for each series."""


def sealed_block(store: Store, entry: Entry, start: int, end: int) -> Block:
    """Return the sealed values of the steps `start` to `end`; not for the event loop's thread."""
    if entry.tail.holds(start, end):
        return entry.tail.window(start, end)
    width = len(entry.stored.session.timelines)
    return store.sealed_between(entry.stored.lineage, width, start, end)


async def sealed_window(store: Store, entry: Entry, start: int, end: int) -> Block:
    """Return the sealed values of the steps `start` to `end`; read on a thread if necessary."""
    if entry.tail.holds(start, end):
        return entry.tail.window(start, end)
    return await in_thread(sealed_block, store, entry, start, end)


def refuse_too_many(series: int, count: int) -> None:
    """Refuse an answer that would take gigabytes.

    Raises:
        StepOutOfRangeError: So many steps of so many series are too many for one answer.
    """
    if series * count > MAX_VALUES:
        raise StepOutOfRangeError(
            f"{count} steps of {series} series are more than the {MAX_VALUES} values that one "
            f"answer holds. Ask for at most {MAX_VALUES // series} steps."
        )
