"""When windows were handed out, and which sessions an operator should look at first."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sealed") as sealed:
        sealed.add_column(sa.Column("handed_out", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(sa.Column("troubled", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_sessions_troubled", "sessions", ["troubled"])
    op.create_index("ix_sessions_created_at_name", "sessions", ["created_at", "name"])
    op.execute(
        "UPDATE sessions SET troubled = 1"
        " WHERE status = 'finished' AND control LIKE '%\"ended\":[\"failed\"%'"
        " OR status = 'active' AND control LIKE '%\"deviating\":{\"%'"
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_created_at_name", "sessions")
    op.drop_index("ix_sessions_troubled", "sessions")
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("troubled")
    with op.batch_alter_table("sealed") as sealed:
        sealed.drop_column("handed_out")
