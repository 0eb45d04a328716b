"""The order in which the events of all sessions were committed."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feed",
        sa.Column("session_id", _id(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_feed_session_id_sessions"
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name="pk_feed"),
    )
    # It was not recorded: the order of the times comes closest. Imported events have numbers
    # below 0, and happened elsewhere.
    op.execute(
        "INSERT INTO feed (session_id, seq, position)"
        " SELECT session_id, seq, row_number() OVER (ORDER BY created_at, session_id, seq)"
        " FROM (SELECT id AS session_id, 0 AS seq, created_at FROM sessions"
        " UNION ALL SELECT session_id, seq + 1, created_at FROM events WHERE seq >= 0) AS known"
    )
    op.create_index("ix_feed_position", "feed", ["position"], unique=True)
    op.execute("INSERT INTO ids SELECT 'feed', coalesce(max(position), 0) + 1 FROM feed")


def downgrade() -> None:
    ids = sa.table("ids", sa.column("kind"))
    op.execute(sa.delete(ids).where(ids.c.kind == "feed"))
    op.drop_table("feed")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
