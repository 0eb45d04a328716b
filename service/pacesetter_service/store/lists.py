"""Queries by a list of rows of numbers, which is one parameter however long it is.

In a statement, `{0}` stands for the first number of a row of the list, and so on.
"""

import json
from collections.abc import Sequence

from sqlalchemy import Dialect, Table, TextClause, text

PLACES = 5
"""The most numbers in a row of a list."""


def as_parameter(rows: Sequence[Sequence[int]]) -> str:
    """Return rows of numbers as the parameter `wanted` of such a query."""
    return json.dumps(rows)


def of_a_list(statement: str, table: Table, dialect: Dialect) -> TextClause:
    """Return a query by a list.

    Args:
        statement: Has `{wanted}` for the list as a table, and `{table}`.
        table: That table.
        dialect: The database's.
    """
    if dialect.name == "postgresql":
        wanted = "json_array_elements(CAST(:wanted AS json)) AS w(value)"
        place = "CAST(w.value ->> {} AS bigint)"
    else:
        wanted, place = "json_each(:wanted) AS w", "json_extract(w.value, '$[{}]')"
    places = [place.format(number) for number in range(PLACES)]
    return text(statement.format(*places, wanted=wanted, table=table.name))


def rows_of_each(
    columns: str, where: str, table: Table, dialect: Dialect, *, last: str = ""
) -> TextClause:
    """Return a query for the rows of a table that belong to each row of a list.

    PostgreSQL does not know how short a list is, and would scan the whole table instead of looking
    up each row by an index. So the query makes it do one row after the other.

    Args:
        columns: The columns to read from the table, which is called b.
        where: The condition by which rows belong.
        table: The table.
        dialect: The database's.
        last: The order of the rows that belong to one row, of which PostgreSQL reads the first
            `:most`; if empty, all. SQLite has no such limit: there `where` must set it.
    """
    if dialect.name != "postgresql":
        joined = f"SELECT {columns} FROM {{wanted}} CROSS JOIN {{table}} AS b WHERE {where}"  # noqa: S608 - of our own
        return of_a_list(joined, table, dialect)
    end = f"ORDER BY {last} LIMIT :most" if last else "OFFSET 0"
    each = f"SELECT {columns} FROM {{table}} AS b WHERE {where} {end}"  # noqa: S608 - likewise
    return of_a_list(f"SELECT e.* FROM {{wanted}} CROSS JOIN LATERAL ({each}) AS e", table, dialect)  # noqa: S608 - likewise


HOLDS_STEP = (
    "b.session_id = {0} AND b.attempt = {1} AND b.start = ("
    "SELECT max(c.start) FROM {table} AS c"
    " WHERE c.session_id = {0} AND c.attempt = {1} AND c.start <= {2})"
)
"""Finds the row of `sealed` that holds an attempt's step, or the last one before it."""
