"""Attempts, snapshots to restore them from, and the lineage of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("session_id", _ID, sa.ForeignKey("sessions.id"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("lineage", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "attempt", name="pk_attempts"),
    )
    op.create_index("ix_attempts_session_id_key", "attempts", ["session_id", "key"])
    op.create_table(
        "snapshots",
        sa.Column("session_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("control", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "attempt", "horizon", name="pk_snapshots"),
    )
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(sa.Column("lineage", sa.Text(), nullable=False, server_default="[]"))


def downgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("lineage")
    op.drop_table("snapshots")
    op.drop_index("ix_attempts_session_id_key", "attempts")
    op.drop_table("attempts")
