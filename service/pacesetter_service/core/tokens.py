"""Tokens: who may call the service, in which role, and about which names."""

import re
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, get_args

from pacesetter_service.core.bounds import Bounds
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
def expression_of(patterns: tuple[str, ...], *, atomic: bool = True) -> str:
    """Return a regular expression of the names that match one of some patterns.

    Args:
        patterns: The patterns.
        atomic: Whether what reads it goes back over what it has matched, as Python and so SQLite
            do, where a few `*` would otherwise take hours. PostgreSQL does not, and knows no
            groups that are never gone back into.
    """
    written = _atomic if atomic else _expression
    return "^(" + "|".join(map(written, patterns)) + ")$"


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _atomic(pattern: str) -> str:
    """Return an expression in which what stands between two `*` is found once, as early as can be.

    What could be found later could be found behind the earliest place too.
    """
    first, *rest = map(_expression, pattern.split("*"))
    if not rest:
        return first
    *between, last = rest
    return first + "".join(f"(?>.*?{each})" for each in between if each) + ".*" + last


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
        bounds: What its holder may order at most; None for whatever its role may.
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
