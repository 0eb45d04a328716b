"""Tokens in SQL: digests of their secrets, never these."""

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from pacesetter_service.core.tokens import NameScope, Token
from pacesetter_service.store.schema import tokens


def read(connection: Connection) -> list[Token]:
    """Read every token, the oldest first."""
    query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
    return [_read_from(row) for row in connection.execute(query)]


def write(connection: Connection, token: Token) -> None:
    """Write a new token."""
    row = {**token._asdict(), "scope": " ".join(token.scope.patterns)}
    connection.execute(insert(tokens), row)


def drop(connection: Connection, token_id: str) -> bool:
    """Delete a token; tells whether it was there."""
    return connection.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount > 0


def _read_from(row: Row[Any]) -> Token:
    fields = row._asdict()
    return Token(**{**fields, "scope": NameScope(tuple(fields["scope"].split()))})
