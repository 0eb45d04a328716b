"""Whether two sessions are the same, NaN included."""

from dataclasses import replace

from pacesetter_service.core.session import Session


def text_of(session: Session) -> str:
    """Write a session out to the bit; equal ones alike, though sets have no order of their own."""
    return f"{replace(session, reported=frozenset())!r} {sorted(session.reported)}"
