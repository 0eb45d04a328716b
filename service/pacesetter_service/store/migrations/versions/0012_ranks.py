"""The last known activity of each rank, if services share a database; the database's identity."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ranks",
        sa.Column("session", sa.String(128), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("deviates", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("session", "rank", name="pk_ranks"),
    )
    op.create_index("ix_ranks_at", "ranks", ["at"])
    with op.batch_alter_table("continuity") as continuity:
        continuity.add_column(sa.Column("identity", sa.String(64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("continuity") as continuity:
        continuity.drop_column("identity")
    op.drop_table("ranks")
