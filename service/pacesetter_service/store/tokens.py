"""Tokens in SQL: digests of their secrets, never these."""

from sqlalchemy import Connection, delete, insert, select

from pacesetter_service.core.tokens import Token
from pacesetter_service.store.schema import tokens


def read(connection: Connection) -> list[Token]:
    """Read every token, the oldest first."""
    query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
    return [Token(*row) for row in connection.execute(query)]


def write(connection: Connection, token: Token) -> None:
    """Write a new token."""
    connection.execute(insert(tokens), token._asdict())


def drop(connection: Connection, token_id: str) -> bool:
    """Delete a token; tells whether it was there."""
    return connection.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount > 0
