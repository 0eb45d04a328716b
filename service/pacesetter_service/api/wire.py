"""The format of values in answers: JSON for people, float64 bytes for the client."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json

from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.windows import Block

WINDOW_MEDIA_TYPE = "application/vnd.pacesetter.window"


def by_series(names: Sequence[str], block: Block) -> dict[str, list[float]]:
    """Return for each series its list of Python floats."""
    return dict(zip(names, block.tolist(), strict=True))


def binary_window(head: Mapping[str, Any], names: Sequence[str], block: Block) -> bytes:
    """Return a window as one line of JSON, then series after series as little-endian float64."""
    line = to_json({**head, "series": list(names), "count": block.shape[1]})
    return line + b"\n" + np.ascontiguousarray(block, dtype="<f8").tobytes()


def curve(found: Curve) -> dict[str, Any]:
    """Return a curve as JSON."""
    return {"steps": found.steps, "series": by_series(found.names, found.block)}
