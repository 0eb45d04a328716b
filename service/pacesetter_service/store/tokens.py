"""Tokens in SQL: the digests of their secrets, never the secrets."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.tokens import NameScope, Token
from pacesetter_service.store.schema import tokens


def read(connection: Connection) -> list[Token]:
    """Read every token, oldest first."""
    query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
    return [_read_from(row) for row in connection.execute(query)]


def write(connection: Connection, token: Token) -> None:
    """Write a new token."""
    bounds = token.bounds and token.bounds.model_dump_json()
    row = {**token._asdict(), "scope": " ".join(token.scope.patterns), "bounds": bounds}
    connection.execute(insert(tokens), row)


def drop(connection: Connection, token_id: str) -> bool:
    """Delete a token, and return whether it existed."""
    return connection.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount > 0


def note_uses(connection: Connection, uses: Mapping[str, str]) -> None:
    """Write when tokens were last used, by id; a later moment in the table is kept."""
    for token_id, moment in uses.items():
        earlier = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < moment)
        noting = update(tokens).where(tokens.c.id == token_id, earlier)
        connection.execute(noting.values(last_used_at=moment))


def _read_from(row: Row[Any]) -> Token:
    fields = row._asdict()
    scope, bounds = NameScope(tuple(fields["scope"].split())), fields["bounds"]
    held = None if bounds is None else Bounds.model_validate_json(bounds)
    return Token(**{**fields, "scope": scope, "bounds": held})
