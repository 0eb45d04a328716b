"""Compares sessions, NaN included."""

from dataclasses import replace

from pacesetter_service.core.session import Session


def text_of(session: Session) -> str:
    """Return a session as text, to the bit; equal sessions give equal texts."""
    return f"{replace(session, reported=frozenset())!r} {sorted(session.reported)}"
