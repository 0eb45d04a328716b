"""When a session was last changed, whose steps it shares, and which names were purged."""

import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(
            sa.Column("changed_at", sa.String(32), nullable=False, server_default="")
        )
    op.create_index("ix_sessions_status", "sessions", ["status"])
    # It was not recorded. For sessions that are over, the newest event comes closest. A running
    # training may have sealed without any event, so it gets the current time.
    op.execute(
        "UPDATE sessions SET changed_at = coalesce((SELECT max(events.created_at) FROM events"
        " WHERE events.session_id = sessions.id), created_at)"
    )
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    active = sa.text("UPDATE sessions SET changed_at = :now WHERE status = 'active'")
    op.execute(active.bindparams(now=now))
    op.create_table(
        "ancestors",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("ancestor_id", _id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_ancestors_session_id_sessions"
        ),
        sa.PrimaryKeyConstraint("session_id", "ancestor_id", name="pk_ancestors"),
    )
    op.create_index("ix_ancestors_ancestor_id", "ancestors", ["ancestor_id"])
    op.create_table(
        "purged",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("purged_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_purged"),
    )
    _find_ancestors()


def downgrade() -> None:
    op.drop_table("purged")
    op.drop_table("ancestors")
    op.drop_index("ix_sessions_status", "sessions")
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("changed_at")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _find_ancestors() -> None:
    connection = op.get_bind()
    found: set[tuple[int, int]] = set()
    for table in ("sessions", "attempts"):
        own = "id" if table == "sessions" else "session_id"
        for session_id, lineage in connection.execute(
            sa.text(f"SELECT {own}, lineage FROM {table}")  # noqa: S608
        ):
            found.update((session_id, each[0]) for each in json.loads(lineage))
    rows = [{"session": own, "ancestor": other} for own, other in sorted(found) if own != other]
    if rows:
        connection.execute(sa.text("INSERT INTO ancestors VALUES (:session, :ancestor)"), rows)
