"""Bringing a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from pacesetter_service.store.served import UnusableDatabaseError


def upgrade(connection: Connection) -> None:
    """Run the migrations that this database has not seen; the caller commits.

    Raises:
        UnusableDatabaseError: A newer version of the service has migrated it further.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnusableDatabaseError(
            "the database was migrated by a newer version of the service; run that version"
        ) from error
