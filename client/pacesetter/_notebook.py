"""How sessions show themselves in a notebook: their curve, where they stand, and their ranks."""

from __future__ import annotations

from typing import Any


class StatusRow(dict[str, Any]):
    """Where a training stands, as the server says; shows itself in a notebook."""
