"""Versions of sessions, ids that several writers share, and a schedule's field under its new name.

`outside`, what a law does out of its range, is now `out_of_range`. Every stored schedule has it.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

HOLDING_SCHEDULES = {
    "sessions": ("spec", "plan", "control"),
    "snapshots": ("plan", "control"),
    "events": ("payload",),
    "templates": ("body",),
}


def upgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(
            sa.Column("version", sa.BigInteger(), nullable=False, server_default="1")
        )
    op.create_table(
        "ids",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name="pk_ids"),
    )
    op.execute("INSERT INTO ids SELECT 'sessions', coalesce(max(id), 0) + 1 FROM sessions")
    _rename("outside", "out_of_range")


def downgrade() -> None:
    _rename("out_of_range", "outside")
    op.drop_table("ids")
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("version")


def _rename(old: str, new: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return  # no other database is older than this
    for table, columns in HOLDING_SCHEDULES.items():
        for column in columns:
            rows = connection.execute(
                sa.text(f'SELECT rowid, "{column}" FROM {table} WHERE "{column}" LIKE :found'),  # noqa: S608
                {"found": f'%"{old}":%'},
            ).all()
            for rowid, text in rows:
                renamed = json.dumps(
                    _renamed(json.loads(text), old, new), separators=(",", ":"), ensure_ascii=False
                )
                connection.execute(
                    sa.text(f'UPDATE {table} SET "{column}" = :text WHERE rowid = :rowid'),  # noqa: S608
                    {"text": renamed, "rowid": rowid},
                )


def _renamed(value: Any, old: str, new: str) -> Any:  # noqa: ANN401 - what JSON holds
    """Return a value with one field renamed in every schedule that has it."""
    if isinstance(value, list):
        return [_renamed(each, old, new) for each in value]
    if isinstance(value, dict):
        has = "kind" in value
        return {
            new if has and name == old else name: _renamed(each, old, new)
            for name, each in value.items()
        }
    return value
