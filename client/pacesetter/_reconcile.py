"""Telling the server, once it is back, what was trained with while it was away."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

from pacesetter._errors import (
    APIError,
    ForeignAnswerError,
    InvalidAnswerError,
    ServerError,
    misfit,
)
from pacesetter._synchronizer import Synchronizer
from pacesetter._window import Window

READ_AT_MOST = 10_000
"""Steps whose values are read in one exchange."""

logger = logging.getLogger("pacesetter")


def reconcile(sync: Synchronizer, trained: Sequence[Window], stop: int) -> None:
    """Tell the server what was used below `stop` in its absence.

    The steps are sealed by now, as planned. The server is told the steps at which what was used
    begins or ceases to differ from the sealed values, and the last one: that is how it records
    deviations.
    """
    first, differing, number = trained[0].start, 0, 0
    try:
        for step, values, differs, changed in _compared(sync, trained, stop):
            number += 1
            differing += differs
            if changed or step == stop - 1:
                sync.send_applied(step, values)
    except (ServerError, ForeignAnswerError):
        raise
    except (APIError, InvalidAnswerError) as error:
        logger.warning("what was used from step %d on could not be told: %s", first, error)
        return
    logger.warning(
        "of the %d steps trained without the server, from step %d on, %d differ from what is "
        "sealed for them",
        number,
        first,
        differing,
    )


def _compared(
    sync: Synchronizer, trained: Sequence[Window], stop: int
) -> list[tuple[int, dict[str, float], bool, bool]]:
    """Return for each step what was used, whether it differs from the sealed, and whether anew."""
    steps = []
    before: frozenset[str] = frozenset()
    for window in trained:
        count = min(window.stop, stop) - window.start
        sealed = _sealed(sync, window.start, count)
        for index in range(count):
            used = window.values(window.start + index)
            differs = frozenset(name for name in used if used[name] != sealed[name][index])
            steps.append((window.start + index, used, bool(differs), differs != before))
            before = differs
    return steps


def _sealed(sync: Synchronizer, start: int, count: int) -> dict[str, list[float]]:
    parts = [
        sync.values(first, min(READ_AT_MOST, start + count - first), sealed=True)
        for first in range(start, start + count, READ_AT_MOST)
    ]
    joined = {
        name: list(itertools.chain.from_iterable(part[name] for part in parts)) for name in parts[0]
    }
    if any(len(column) != count for column in joined.values()):
        raise misfit(
            f"the steps {start} to {start + count - 1} are not all sealed, though later ones are"
        )
    return joined
