"""Who looks at a page: what the holder of a token may do, and a visitor of an open service."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from pacesetter_service.core.errors import ForbiddenError, OutOfScopeError
from pacesetter_service.core.tokens import EVERYTHING, NameScope, Role, Token, includes

VISITOR = "pacesetter.visitor"
"""Where a request that was let in has its visitor."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        name: The author of what is ordered.
        role: What may be done.
        scope: The names that may be spoken of.
        known: Whether there was a login; without tokens there is none.
    """

    name: str
    role: Role
    scope: NameScope = EVERYTHING
    known: bool = True

    def may(self, needed: Role) -> bool:
        """Return whether a role is enough."""
        return includes(self.role, needed)


UNKNOWN = Visitor("anonymous", "admin", known=False)
"""Who comes to a service without tokens."""


def visitor_with(token: Token) -> Visitor:
    """Return the visitor who holds a token; one with bounds looks on: pages know no bounds."""
    role: Role = token.role if token.bounds is None else "viewer"
    return Visitor(token.name, role, token.scope)


def visitor_of(request: HTTPConnection) -> Visitor:
    """Return who makes a request that was let in."""
    found: Visitor = request.scope[VISITOR]
    return found


def refuse_below(needed: Role, visitor: Visitor) -> None:
    """Refuse a visitor whose role is not enough.

    Raises:
        ForbiddenError: It is not.
    """
    if not visitor.may(needed):
        raise ForbiddenError(visitor.role, needed)


def refuse_name(name: str, visitor: Visitor) -> None:
    """Refuse a name that a visitor may not speak of.

    Raises:
        OutOfScopeError: It is such a name.
    """
    if not visitor.scope.holds(name):
        raise OutOfScopeError(name, visitor.scope.patterns)
