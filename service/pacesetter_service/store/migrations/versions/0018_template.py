"""Which template a session was made from, so that its family is found without reading all specs."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sessions") as sessions:
        sessions.add_column(sa.Column("template", sa.String(160), nullable=True))
    last: int | None = -1
    while last is not None:
        last = _fill(last)
    op.create_index("ix_sessions_template", "sessions", ["template"])


def downgrade() -> None:
    op.drop_index("ix_sessions_template", "sessions")
    with op.batch_alter_table("sessions") as sessions:
        sessions.drop_column("template")


def _fill(last: int) -> int | None:
    """Write the templates of some sessions after one; return the last of them, or None if none.

    There may be very many large specs: only some are in memory at a time.
    """
    connection = op.get_bind()
    rows = connection.execute(_MADE, {"last": last}).all()
    found = [
        {"id": row.id, "template": template}
        for row in rows
        if (template := _template_of(json.loads(row.spec))) is not None
    ]
    if found:
        connection.execute(_CHANGE, found)
    return rows[-1].id if rows else None


_MADE = sa.text(
    "SELECT id, spec FROM sessions WHERE id > :last AND spec LIKE '%\"origin\":{%'"
    " ORDER BY id LIMIT 1000"
)

_CHANGE = sa.text("UPDATE sessions SET template = :template WHERE id = :id")


def _template_of(spec: dict[str, Any]) -> str | None:
    """Return the template of a spec; for a fork with its own description, that of its parent."""
    origin = spec.get("origin")
    if origin:
        return str(origin["template"])
    earlier = spec.get("earlier")
    return _template_of(earlier["spec"]) if earlier else None
