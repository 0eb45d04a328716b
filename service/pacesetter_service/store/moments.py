"""When steps were handed out, of some of them: each found by a look at an index."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Dialect, TextClause

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.store.block_table import as_parameter, of_a_list
from pacesetter_service.store.schema import sealed


class HandedOut(NamedTuple):
    """The first step of a window, and when it was handed out: seconds since 1970, UTC."""

    step: int
    at: float


def handed_out(connection: Connection, ref: AttemptRef, steps: Iterable[int]) -> list[HandedOut]:
    """Return the windows of an attempt that hold some steps, in their order.

    Those of which the moment was not written down are left out.
    """
    asked = [(ref.session_id, ref.attempt, step) for step in steps]
    query = _written(connection.dialect)
    rows = connection.execute(query, {"wanted": as_parameter(asked)}).all()
    known = {int(start): int(at) for start, at in rows if at is not None}
    return [HandedOut(start, at / 1000) for start, at in sorted(known.items())]


@cache
def _written(dialect: Dialect) -> TextClause:
    return of_a_list(_WINDOWS, sealed, dialect)


_WINDOWS = (
    "SELECT s.start, s.handed_out"
    " FROM {wanted} CROSS JOIN {table} AS s"
    " WHERE s.session_id = {0} AND s.attempt = {1} AND s.start = ("
    "SELECT max(b.start) FROM {table} AS b"
    " WHERE b.session_id = {0} AND b.attempt = {1} AND b.start <= {2})"
)
