"""Lineage: which life of which session a step was lived in.

A job that restarts from a checkpoint opens a new attempt; a fork opens a new session. Both share
the past up to their first step by reference: nothing of it is copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pacesetter_service.core.model import MAX_STEP


@dataclass(frozen=True, slots=True)
class Life:
    """One attempt of one session, by the session's id in the database, and its first step."""

    session_id: int
    attempt: int
    start: int


class Stretch(NamedTuple):
    """The steps `start` to `end`, as they were lived in one life."""

    life: Life
    start: int
    end: int


Lineage = tuple[Life, ...]
"""Lives in the order of their first steps; each ends where the next one begins."""


def stretches(lineage: Lineage, start: int = 0, end: int = MAX_STEP) -> Iterator[Stretch]:
    """Cut the steps `start` to `end` into those of each life."""
    ends = [*(life.start for life in lineage[1:]), MAX_STEP]
    for life, until in zip(lineage, ends, strict=True):
        first, last = max(life.start, start), min(until, end)
        if first < last:
            yield Stretch(life, first, last)


def branch(lineage: Lineage, life: Life) -> Lineage:
    """Give the lineage of a life that begins in the middle of others."""
    return (*(each for each in lineage if each.start < life.start), life)
