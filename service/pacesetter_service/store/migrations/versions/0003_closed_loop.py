"""Measurements by metric instead of by controller; events know the step that they hold from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The old rows could be derived from the readings again; no version was released with them.
    op.drop_table("measurements")
    op.create_table(
        "measurements",
        sa.Column("session_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metric_id", _ID, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("ranks", sa.Integer(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "session_id", "attempt", "metric_id", "step", name="pk_measurements"
        ),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("at", sa.BigInteger(), nullable=True))
    op.create_index("ix_events_session_id_attempt_at", "events", ["session_id", "attempt", "at"])


def downgrade() -> None:
    op.drop_index("ix_events_session_id_attempt_at", "events")
    with op.batch_alter_table("events") as events:
        events.drop_column("at")
    op.drop_table("measurements")
    op.create_table(
        "measurements",
        sa.Column("session_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("controller", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "session_id", "attempt", "controller", "step", name="pk_measurements"
        ),
        sqlite_with_rowid=False,
    )


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
