"""Changes as PostgreSQL's NOTIFY tells them to processes that LISTEN; an addition to polling.

A notification is a hint: it may be lost or come twice, and its receiver asks the database.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from time import monotonic
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, make_url, text

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.store.writing import reason_of, translated

CHANNEL = "pacesetter"

LONGEST = 7_999
"""The most bytes in one notification."""

ANY = "*"
"""Instead of names: any session may have changed."""

TEST = "?"
"""The first character of a test's payload; no session's name begins with it."""

TEST_SECONDS = 5.0
"""Seconds that a test waits for its own notification."""

_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', :payload)")


class DeafConnectionError(Exception):
    """A connection accepts LISTEN but hears nothing, as one through PgBouncer does."""


def notify(engine: Engine, names: Collection[str]) -> None:
    """Tell all listeners that sessions have changed.

    Args:
        engine: The database; PgBouncer may be in between.
        names: The sessions' names; if they do not fit into one notification, `ANY` is sent.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    payload = " ".join(sorted(names))
    _send(engine, payload if len(payload) <= LONGEST else ANY)


def _send(engine: Engine, payload: str) -> None:
    with translated(), engine.begin() as connection:
        # A crash may lose a hint.
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(_NOTIFY, {"payload": payload})


class Listening:
    """One connection that listens; for a single thread."""

    def __init__(self, url: str, network: Mapping[str, int]) -> None:
        """Connect, and listen.

        Args:
            url: The database itself, such as `postgresql+psycopg://user@host/name`: no connection
                pooler may be in between.
            network: How soon an unresponsive server is given up, as psycopg's parameters; the
                URL may override them.

        Raises:
            StorageUnavailableError: It cannot be reached.
        """
        import psycopg  # noqa: PLC0415 - SQLite needs no driver

        where = make_url(url)
        given, named = where.get_dialect()().create_connect_args(where)
        self._lost = psycopg.Error
        with self._translated():
            self._connection: Any = psycopg.connect(*given, autocommit=True, **{**network, **named})
            self._connection.execute(f"LISTEN {CHANNEL}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def test(self, sender: Engine) -> None:
        """Check that notifications that are sent in the usual way are heard here.

        Args:
            sender: The engine by which notifications are sent.

        Raises:
            DeafConnectionError: They are not.
            StorageUnavailableError: The database did not answer.
        """
        sent, end = TEST + token_hex(8), monotonic() + TEST_SECONDS
        _send(sender, sent)
        while (left := end - monotonic()) > 0:
            if sent in self._payloads(left):
                return
        raise DeafConnectionError(f"no notification was heard within {TEST_SECONDS:g} seconds")

    def heard(self, seconds: float) -> frozenset[str]:
        """Return the names of sessions that have changed, as soon as there are some.

        Args:
            seconds: How long to wait; then no names are returned.

        Raises:
            StorageUnavailableError: The connection was lost.
        """
        told = (each for each in self._payloads(seconds) if not each.startswith(TEST))
        return frozenset(name for payload in told for name in payload.split())

    def _payloads(self, seconds: float) -> list[str]:
        with self._translated():
            found = self._connection.notifies(timeout=seconds, stop_after=1)
            return [each.payload for each in found]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            raise StorageUnavailableError(reason_of(error)) from error
