"""The tables. Natural keys are primary keys, so that the database makes everything count once.

Times are ISO 8601 text in UTC. JSON is stored as text, because the order of keys matters (groups).
The tables that take every report and window have no foreign keys: their session ids come from the
writer, which has just read or made them.
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

# SQLite numbers rows automatically only in a column that is exactly INTEGER.
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
    Column(
        "troubled",
        Integer,
        nullable=False,
        server_default="0",
        comment="1 if it failed, or runs and a rank deviates, by its record; or 0",
    ),
    Column("template", String(160), nullable=True, comment="with its version; what it was made of"),
    Index(None, "status"),
    Index(None, "troubled"),
    Index(None, "template"),
    Index(None, "created_at", "name"),
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

feed = Table(
    "feed",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, comment="of the event; 0 is the creation"),
    Column(
        "position", BigInteger, nullable=False, comment="among all events, as they were committed"
    ),
    Index(None, "position", unique=True),
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
    Column(
        "handed_out",
        BigInteger,
        nullable=True,
        comment="when; milliseconds since 1970, UTC; null if that was not written down",
    ),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False, unique=True),
)


def _blocks(name: str) -> Table:
    """Return a table of values by step, in blocks of columns; see `blocks.py`."""
    return Table(
        name,
        metadata,
        Column("session_id", Id, primary_key=True),
        Column("metric_id", Id, primary_key=True),
        Column("attempt", Integer, primary_key=True),
        Column("until", BigInteger, primary_key=True, comment="the step after the last in it"),
        Column("number", Integer, primary_key=True, comment="among those with the same end"),
        Column("start", BigInteger, nullable=False, comment="the first step in it"),
        Column("size", Integer, nullable=False, comment="how many values"),
        Column("data", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )


# What ranks reported, and what controllers saw of it.
reading_blocks = _blocks("reading_blocks")
measurement_blocks = _blocks("measurement_blocks")

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
    Column(
        "scope",
        Text,
        nullable=False,
        comment="patterns of names, with spaces between; none for every name",
    ),
    Column("last_used_at", String(32), nullable=True, comment="to about a minute"),
    Column("bounds", Text, nullable=True, comment="what may be ordered with it, as JSON"),
)

ranks = Table(
    "ranks",
    metadata,
    Column("session", String(128), primary_key=True, comment="its name"),
    Column("rank", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False, index=True, comment="its last call, by the database"),
    Column("deviates", Integer, nullable=False, comment="1 if it trains with other values, or 0"),
    Column("state", Text, nullable=False),
)

continuity = Table(
    "continuity",
    metadata,
    Column("epoch", String(32), primary_key=True, comment="of its one row"),
    Column("commits", BigInteger, nullable=False),
    Column("identity", String(64), nullable=True, comment="of the copy of the database, if known"),
)

OF_A_SESSION = tuple(each for each in reversed(metadata.sorted_tables) if "session_id" in each.c)
"""Every table with a session's rows besides `sessions`: a purge empties all of them."""
