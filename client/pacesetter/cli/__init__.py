"""The command `pacesetter`: checks and serves a deployment, and reaches every session over HTTP."""

from __future__ import annotations

from pacesetter.cli.entry import main

__all__ = ["main"]
