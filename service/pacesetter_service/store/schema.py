"""The tables. Natural keys are primary keys, so that counting once is the database's job.

Times are ISO 8601 text in UTC. JSON is text, whose order of keys means something here (groups).
NaN is NULL, because SQLite has no NaN. The tables that take every report and window have no foreign
keys: their session ids come from the writer, which has just read or made them.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("spec", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("horizon", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False, comment="first step that no trainer was given"),
    Column("revision", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False, comment="how many rows of `events` there are"),
    Column("plan", Text, nullable=False, comment="the folded timelines; changes with the revision"),
    Column("control", Text, nullable=False, comment="the folded controllers and what they await"),
    Column("lineage", Text, nullable=False, comment="the attempts that its steps were trained in"),
    Column("created_at", String(32), nullable=False),
    Column("changed_at", String(32), nullable=False, comment="when its row was written last"),
    Column(
        "version", BigInteger, nullable=False, comment="how often it was written; fences writers"
    ),
    Index(None, "status"),
)

ids = Table(
    "ids",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("next", BigInteger, nullable=False, comment="the first id that no writer has taken"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("start", BigInteger, nullable=False),
    Column("key", String(256), nullable=False, comment="what all ranks of a restart share"),
    Column("lineage", Text, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "session_id", "key"),
)

ancestors = Table(
    "ancestors",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column(
        "ancestor_id",
        Id,
        primary_key=True,
        comment="another session, which trained its first steps",
    ),
    Index(None, "ancestor_id"),
)

purged = Table(
    "purged",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("attempt", Integer, nullable=False, comment="the last one; none has its number again"),
    Column("actor", String(128), nullable=False),
    Column("purged_at", String(32), nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("session_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("horizon", BigInteger, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("control", Text, nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
    Index(None, "name", "value"),
)

events = Table(
    "events",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", BigInteger, nullable=True, comment="the first step that it holds for"),
    Column("payload", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "session_id", "attempt", "at"),
)

sealed = Table(
    "sealed",
    metadata,
    Column("session_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column(
        "values", LargeBinary, nullable=False, comment="float64, little endian, series by series"
    ),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False, unique=True),
)

readings = Table(
    "readings",
    metadata,
    Column("session_id", Id, primary_key=True),
    Column("metric_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("value", Double, nullable=True),
    sqlite_with_rowid=False,
)

templates = Table(
    "templates",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("body", Text, nullable=False),
    Column("deprecated", Text, nullable=True, comment="why it should not be used any more"),
    Column("created_at", String(32), nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(128), nullable=False, comment="of its holder; not unique"),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the secret, hexadecimal"),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=True),
)

continuity = Table(
    "continuity",
    metadata,
    Column("epoch", String(32), primary_key=True, comment="of its one row"),
    Column("commits", BigInteger, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("session_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("metric_id", Id, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("value", Double, nullable=True),
    Column("ranks", Integer, nullable=False, comment="how many of them it was made of"),
    Column("horizon", BigInteger, nullable=False, comment="the first step that it could change"),
    sqlite_with_rowid=False,
)

OF_A_SESSION = tuple(each for each in reversed(metadata.sorted_tables) if "session_id" in each.c)
"""Every table with rows of a session besides `sessions`: all are emptied where one is removed."""
