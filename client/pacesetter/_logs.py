"""What a framework logs, as metrics."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any


def measured(logs: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers among what was logged, as floats or as arrays of one element."""
    found = {name: _plain(value) for name, value in logs.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, Real)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - no array library is known here
    is_scalar = hasattr(value, "item") and getattr(value, "ndim", None) == 0
    return value.item() if is_scalar else value
