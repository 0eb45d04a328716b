"""Readings and measurements in blocks of columns: a third of the space of a row for each.

The only way back is an earlier backup.
"""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op

from pacesetter_service.store.blocks import FULL, Columns

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

KEYS = ("session_id", "metric_id", "attempt")


def upgrade() -> None:
    _move("readings", "reading_blocks", ("rank",))
    _move("measurements", "measurement_blocks", ("ranks", "horizon"))


def _move(old: str, new: str, beside: tuple[str, ...]) -> None:
    blocks = op.create_table(
        new,
        sa.Column("session_id", Id, nullable=False),
        sa.Column("metric_id", Id, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*KEYS, "until", "number", name=f"pk_{new}"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    columns = ", ".join((*KEYS, "value", "step", *beside))
    query = sa.text(
        f"SELECT {columns} FROM {old} ORDER BY session_id, metric_id, attempt, step, {beside[0]}"  # noqa: S608
    )
    rows = connection.execute(query.execution_options(yield_per=FULL))
    for row in _blocks_of(rows):
        connection.execute(sa.insert(blocks), row)
    op.drop_table(old)


def _blocks_of(rows: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - rows of a result
    for series, some in groupby(rows, lambda row: tuple(row[:3])):
        key = dict(zip(KEYS, series, strict=True))
        number = 0
        while found := list(islice(some, FULL)):
            whole = np.array([row[4:] for row in found], np.int64).T
            values = np.array([row[3] for row in found], np.float64)  # NaN was NULL
            for block in Columns(whole[0], whole[1:], values).blocks():
                yield {**key, "number": number, **block._asdict()}
                number += 1
