"""A PostgreSQL database in which not every text can stand is refused."""

import pytest
from sqlalchemy import create_engine, text

from pacesetter_service.doctor import checks
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.served import UnusableDatabaseError
from postgres import bare


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused(encoding: str) -> None:
    """What to do about it is said, by the doctor too, and nothing is written."""
    url = bare(encoding)
    assert {each.check: each.result for each in checks(url)}["server_encoding"] == "FAIL"
    with pytest.raises(UnusableDatabaseError, match=f"in {encoding}.*ENCODING 'UTF8'"):
        PostgresStore(url)
    engine = create_engine(url, connect_args={"client_encoding": "utf8"})
    with engine.connect() as connection:
        assert not connection.scalar(text("SELECT to_regclass('alembic_version')"))
    engine.dispose()
