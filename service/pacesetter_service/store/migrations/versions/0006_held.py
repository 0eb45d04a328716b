"""Which sealed steps trainers hold; steps that were sealed before count as held."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(sa.Column("held", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE sessions SET held = horizon")


def downgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("held")
