"""Migrating a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pacesetter_service.store.served import UnusableDatabaseError


def upgrade(connection: Connection, *, migrates: bool = True) -> None:
    """Run the migrations that a database lacks; the caller commits.

    Args:
        connection: Writes to the database.
        migrates: Whether the database may be changed; if not, an outdated one is refused.

    Raises:
        UnusableDatabaseError: A newer version of the service has migrated it further, or it is
            older and may not be changed.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    found, head = revision_of(connection), ScriptDirectory.from_config(config).get_current_head()
    if found == head:
        return
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise UnusableDatabaseError(
            f"the database was migrated by a newer version of the service, to the schema {found};"
            f" this version knows {head} at most: run that version, or a newer one"
        )
    if not migrates:
        stands = "has no tables yet" if found is None else f"has the schema {found}"
        raise UnusableDatabaseError(
            f"the database {stands}, this version needs {head}, and the setting auto-migrate is"
            " off: stop all services on it, back it up, and run `pacesetter migrate`"
        )
    command.upgrade(config, "head")


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database's schema; None if it has no tables yet."""
    return MigrationContext.configure(connection).get_current_revision()
