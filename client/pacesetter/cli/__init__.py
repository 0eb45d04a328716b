"""The command `pacesetter`: a deployment checked and served, and every session over HTTP."""

from __future__ import annotations

from pacesetter.cli.entry import main

__all__ = ["main"]
