"""Tokens: who may call the service, and in which role."""

from typing import Literal, NamedTuple, get_args

Role = Literal["viewer", "trainer", "operator", "admin"]

ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most: each may do what those before it may."""

ADMIN = "admin"
"""What the holder of the service's own token is called in the record."""

RESERVED = (ADMIN, "anonymous", "batch_scaling")
"""Names that say in the record who was not known by a token of their own."""


class Token(NamedTuple):
    """What is known of a token; its secret is known to its holder alone.

    Attributes:
        id: Stands in the secret too, so that who finds one knows which to revoke.
        name: Of its holder: the author of what is ordered with it.
        role: What its holder may do.
        digest: The SHA-256 of the secret, in hexadecimal.
        created_at: When it was made; ISO 8601, in UTC.
        expires_at: From when on it is worth nothing; None for never.
    """

    id: str
    name: str
    role: Role
    digest: str
    created_at: str
    expires_at: str | None


def includes(role: Role, needed: Role) -> bool:
    """Return whether a role may do what another one may."""
    return ROLES.index(role) >= ROLES.index(needed)
