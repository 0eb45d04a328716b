"""The newest values of many sessions, with a few queries for all, however long their records.

Every value is found by index lookups: no query scans a record.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Dialect, Table, TextClause

from pacesetter_service.core.attempts import AttemptRef, Lineage, spans
from pacesetter_service.store.block_table import (
    MEASUREMENTS,
    READINGS,
    Blocks,
    Series,
)
from pacesetter_service.store.blocks import Columns, unpack_all
from pacesetter_service.store.lists import HOLDS_STEP, as_parameter, of_a_list, rows_of_each
from pacesetter_service.store.schema import reading_blocks, sealed

ATTEMPTS = 8
"""How many of the newest attempts of a lineage are searched for a metric."""

Until = tuple[Series, int]
"""A series, and the step before which its values are wanted."""


class Newest(NamedTuple):
    """The newest values of a metric, in order; None where there are none.

    Attributes:
        seen: Values that controllers have seen, with at least the last one.
        said: Values that ranks reported: all values of the last reported step, and perhaps some
            of the steps before.
    """

    seen: Columns | None
    said: Columns | None


def newest_of(
    connection: Connection, lineages: Mapping[Lineage, int], most: int
) -> dict[Lineage, dict[str, Newest]]:
    """Return the newest values of each metric, for many sessions together.

    Args:
        connection: Reads.
        lineages: The attempts that each session was trained in, and for how many steps before the
            last one all reports of ranks are wanted too.
        most: The most metrics of a session: the first ones by name.
    """
    wanted = {lineage: list(spans(lineage))[-ATTEMPTS:] for lineage in lineages}
    every = {ref.session_id for each in wanted.values() for ref, _, _ in each}
    names = _metrics_of(connection, every)
    asked: dict[Lineage, dict[str, list[Until]]] = {}
    for lineage, some in wanted.items():
        by_name = asked[lineage] = defaultdict(list)
        for ref, _, end in reversed(some):
            for name, number in names.get(ref.session_id, {}).items():
                by_name[name].append(((ref.session_id, number, ref.attempt), end))
    places = {
        place: lineages[lineage]
        for lineage, by_name in asked.items()
        for some in by_name.values()
        for place in some
    }
    seen = _last_in(MEASUREMENTS, connection, dict.fromkeys(places, 0))
    said = _last_in(READINGS, connection, places)
    found: dict[Lineage, dict[str, Newest]] = {}
    for lineage, places_of in asked.items():
        both = {
            name: Newest(_first_of(seen, places_of[name]), _first_of(said, places_of[name]))
            for name in sorted(places_of)
        }
        there = [(name, each) for name, each in both.items() if any(map(_is_there, each))]
        found[lineage] = dict(there[:most])
    return found


def _is_there(columns: Columns | None) -> bool:
    return columns is not None


class SealedStep(NamedTuple):
    """A step of an attempt, and how many series it has."""

    ref: AttemptRef
    step: int
    width: int


def sealed_at(
    connection: Connection, wanted: Sequence[SealedStep]
) -> list[NDArray[np.float64] | None]:
    """Return the sealed values of many steps, one for each series; None if a step is not sealed."""
    asked = [(each.ref.session_id, each.ref.attempt, each.step) for each in wanted]
    query = _windows(connection.dialect)
    rows = connection.execute(query, {"wanted": as_parameter(list(set(asked)))}).all()
    blocks = {tuple(row[:3]): row[3:] for row in rows}
    return [
        _column(each, *blocks[place]) if place in blocks else None
        for each, place in zip(wanted, asked, strict=True)
    ]


def _column(
    wanted: SealedStep, start: int, count: int, values: bytes
) -> NDArray[np.float64] | None:
    if wanted.step >= start + count:
        return None
    return np.frombuffer(values, "<f8").reshape(wanted.width, count)[:, wanted.step - start]


def _first_of(found: Mapping[Until, Columns], places: Iterable[Until]) -> Columns | None:
    """Return the values of the first place that has any."""
    return next((found[each] for each in places if each in found), None)


def _last_in(
    table: Blocks, connection: Connection, places: Mapping[Until, int]
) -> dict[Until, Columns]:
    """Return the last values before a step for many series, with all values of the last step.

    A block that ends with the last step has a value of it, and blocks that reach beyond may too.
    """
    asked = [(*series, end) for series, end in places]
    rows = _rows(connection, _LAST_ENDS, table.table, asked)
    there = table.overlapping(
        connection,
        [
            (*row[:3], (row[4] or 0) - 1 - places[(row[0], row[1], row[2]), row[3]], row[3] - 1)
            for row in rows
        ],
    )
    found = {}
    for series, end in places:
        if series in there:
            blocks = [each.block for each in there[series]]
            columns = unpack_all(blocks, table.beside)
            if columns.steps[-1] >= end:  # the attempt went on with steps that do not count
                columns = columns.between(0, end)
            if len(columns):
                found[series, end] = columns
    return found


def _metrics_of(connection: Connection, ids: Iterable[int]) -> dict[int, dict[str, int]]:
    """Return the ids of the metrics that were reported to each of the sessions, by name."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    asked = [(each,) for each in sorted(ids)]
    for session_id, number, name in _rows(connection, _REPORTED, reading_blocks, asked):
        found[session_id][name] = number
    return found


def _rows(
    connection: Connection, statement: str, table: Table, asked: Sequence[Sequence[int]]
) -> Sequence[Any]:
    if not asked:
        return ()
    query = _written(statement, table, connection.dialect)
    return connection.execute(query, {"wanted": as_parameter(asked)}).all()


@cache
def _windows(dialect: Dialect) -> TextClause:
    columns = '{0}, {1}, {2}, b.start, b.count, b."values"'
    return rows_of_each(columns, HOLDS_STEP, sealed, dialect)


@cache
def _written(statement: str, table: Table, dialect: Dialect) -> TextClause:
    return of_a_list(statement, table, dialect)


_LAST_ENDS = (
    "SELECT {0}, {1}, {2}, {3}, (SELECT max(b.until) FROM {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2} AND b.until <= {3})"
    " FROM {wanted}"
)


_REPORTED = (
    "WITH RECURSIVE reported(owner, id) AS ("
    " SELECT {0}, (SELECT min(b.metric_id) FROM {table} AS b WHERE b.session_id = {0})"
    " FROM {wanted}"
    " UNION ALL"
    " SELECT reported.owner, (SELECT min(b.metric_id) FROM {table} AS b"
    " WHERE b.session_id = reported.owner AND b.metric_id > reported.id)"
    " FROM reported WHERE reported.id IS NOT NULL"
    ") SELECT reported.owner, metrics.id, metrics.name"
    " FROM reported JOIN metrics ON metrics.id = reported.id"
)
"""Finds each metric of a session by one index lookup, however many other sessions have."""
