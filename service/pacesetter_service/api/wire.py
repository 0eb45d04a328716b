"""How values look in answers: JSON for people, float64 bytes for the client."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.forecast import decimate
from pacesetter_service.core.spec import MAX_VALUES

WINDOW_MEDIA_TYPE = "application/vnd.pacesetter.window"

Block = NDArray[np.float64]

MAX_CURVE = 1_000_000
"""The most steps that one curve may span."""


def refuse_too_many(series: int, count: int) -> None:
    """Refuse what would take gigabytes.

    Raises:
        StepOutOfRangeError: So many steps of so many series are too many for one answer.
    """
    if series * count > MAX_VALUES:
        raise StepOutOfRangeError(
            f"{count} steps of {series} series are more than the {MAX_VALUES} values that one "
            f"answer holds. Ask for at most {MAX_VALUES // series} steps."
        )


def by_series(names: Sequence[str], block: Block) -> dict[str, list[float]]:
    """Give each series its list of Python floats."""
    return dict(zip(names, block.tolist(), strict=True))


def binary_window(head: Mapping[str, Any], names: Sequence[str], block: Block) -> bytes:
    """Write a window as one line of JSON and then, series after series, little-endian float64."""
    line = to_json({**head, "series": list(names), "count": block.shape[1]})
    return line + b"\n" + np.ascontiguousarray(block, dtype="<f8").tobytes()


def stacked(values: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> Block:
    """Put series below each other."""
    return np.stack([values[name] for name in names])


def curve(names: list[str], block: Block, start: int, points: int) -> dict[str, Any]:
    """Thin curves out to about `points` steps each."""
    kept = decimate(dict(zip(names, block, strict=True)), points)
    return {"steps": (kept + start).tolist(), "series": by_series(names, block[:, kept])}
