"""Tokens: who may call the service, in which role, and about which names."""

import re
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, get_args

from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.model import Written

Role = Literal["viewer", "trainer", "operator", "admin"]

ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most powerful: each may do what the roles before it may."""

ADMIN = "admin"
"""The name in the record for the holder of the service's own token."""

RESERVED = (ADMIN, "anonymous", "batch_scaling")
"""Names that stand in the record for actors without a token of their own."""


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
    """The names of sessions and templates that a caller may use.

    Attributes:
        patterns: A name must match one of them; empty for every name.
    """

    patterns: tuple[str, ...] = ()

    def holds(self, name: str) -> bool:
        """Return whether a name is one of them."""
        return not self.patterns or re.fullmatch(expression_of(self.patterns), name) is not None


EVERYTHING = NameScope()
"""The scope of a caller that may use every name."""


@lru_cache(maxsize=1024)
def expression_of(patterns: tuple[str, ...], *, atomic: bool = True) -> str:
    """Return a regular expression of the names that match one of some patterns.

    Args:
        patterns: The patterns.
        atomic: Whether the engine backtracks, as Python's and so SQLite's does, where a few `*`
            would otherwise take hours. PostgreSQL's does not, and knows no atomic groups.
    """
    written = _atomic if atomic else _expression
    return "^(" + "|".join(map(written, patterns)) + ")$"


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _atomic(pattern: str) -> str:
    """Return an expression that finds the text between two `*` once, as early as possible.

    Any later match could also follow the earliest one.
    """
    first, *rest = map(_expression, pattern.split("*"))
    if not rest:
        return first
    *between, last = rest
    return first + "".join(f"(?>.*?{each})" for each in between if each) + ".*" + last


class Token(NamedTuple):
    """What the service knows of a token; only its holder knows the secret.

    Attributes:
        id: Part of the secret too, so that a finder of the secret knows which token to revoke.
        name: Its holder's name: the actor of what is ordered with it.
        role: What its holder may do.
        digest: The SHA-256 of the secret, in hexadecimal.
        created_at: When it was created; ISO 8601, in UTC.
        expires_at: From when on it is invalid; None for never.
        scope: The names that its holder may use.
        last_used_at: When a call was last made with it, to about a minute; None if none was.
        bounds: What its holder may order at most; None if only its role limits it.
    """

    id: str
    name: str
    role: Role
    digest: str
    created_at: str
    expires_at: str | None
    scope: NameScope = EVERYTHING
    last_used_at: str | None = None
    bounds: Bounds | None = None


def includes(role: Role, needed: Role) -> bool:
    """Return whether a role may do what another one may."""
    return ROLES.index(role) >= ROLES.index(needed)
