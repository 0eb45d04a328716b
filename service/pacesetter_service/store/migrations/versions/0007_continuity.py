"""How far the database has come, and in which epoch."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "continuity",
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("commits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name="pk_continuity"),
    )


def downgrade() -> None:
    op.drop_table("continuity")
