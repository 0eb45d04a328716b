"""Tokens: who may call the service, in which role, and about which names."""

import re
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, get_args

from pacesetter_service.core.model import Written

Role = Literal["viewer", "trainer", "operator", "admin"]

ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most: each may do what those before it may."""

ADMIN = "admin"
"""What the holder of the service's own token is called in the record."""

RESERVED = (ADMIN, "anonymous", "batch_scaling")
"""Names that say in the record who was not known by a token of their own."""


NamePattern = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,127}$",
        "Write a name in which * stands for any characters and ? for one: 1 to 128 letters"
        " (A to Z), digits, dots, hyphens, underscores, * and ?",
    ),
]
"""A name in which `*` stands for any characters, or none, and `?` for any single one."""

MAX_PATTERNS = 64
"""The most patterns of one token."""


class NameScope(NamedTuple):
    """The names of sessions and templates that a caller may speak of.

    Attributes:
        patterns: What a name matches one of; none of them for every name.
    """

    patterns: tuple[str, ...] = ()

    def holds(self, name: str) -> bool:
        """Return whether a name is one of them."""
        return not self.patterns or re.fullmatch(expression_of(self.patterns), name) is not None


EVERYTHING = NameScope()
"""The scope of who may speak of every name."""


@lru_cache(maxsize=1024)
def expression_of(patterns: tuple[str, ...]) -> str:
    """Return a regular expression, for Python and for databases, of the names that match one."""
    return "^(" + "|".join(map(_expression, patterns)) + ")$"


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


class Token(NamedTuple):
    """What is known of a token; its secret is known to its holder alone.

    Attributes:
        id: Stands in the secret too, so that who finds one knows which to revoke.
        name: Of its holder: the author of what is ordered with it.
        role: What its holder may do.
        digest: The SHA-256 of the secret, in hexadecimal.
        created_at: When it was made; ISO 8601, in UTC.
        expires_at: From when on it is worth nothing; None for never.
        scope: The names that its holder may speak of.
        last_used_at: When a call was last made with it, to about a minute; None if none was.
    """

    id: str
    name: str
    role: Role
    digest: str
    created_at: str
    expires_at: str | None
    scope: NameScope = EVERYTHING
    last_used_at: str | None = None


def includes(role: Role, needed: Role) -> bool:
    """Return whether a role may do what another one may."""
    return ROLES.index(role) >= ROLES.index(needed)
