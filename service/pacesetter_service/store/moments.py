"""When some steps were handed out; an index finds each."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Dialect, TextClause

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.store.lists import HOLDS_STEP, as_parameter, rows_of_each
from pacesetter_service.store.schema import sealed


class HandedOut(NamedTuple):
    """The first step of a window, and when it was handed out: seconds since 1970, UTC."""

    step: int
    at: float


def handed_out(connection: Connection, ref: AttemptRef, steps: Iterable[int]) -> list[HandedOut]:
    """Return the windows of an attempt that hold some steps, in order.

    Windows whose moment was not recorded are left out.
    """
    asked = [(ref.session_id, ref.attempt, step) for step in steps]
    query = _written(connection.dialect)
    rows = connection.execute(query, {"wanted": as_parameter(asked)}).all()
    known = {int(start): int(at) for start, at in rows if at is not None}
    return [HandedOut(start, at / 1000) for start, at in sorted(known.items())]


@cache
def _written(dialect: Dialect) -> TextClause:
    return rows_of_each("b.start, b.handed_out", HOLDS_STEP, sealed, dialect)
