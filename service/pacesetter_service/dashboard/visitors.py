"""Visitors of pages: what the holder of a token, or a visitor of an open service, may do."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from pacesetter_service.core.errors import ForbiddenError, OutOfScopeError
from pacesetter_service.core.tokens import EVERYTHING, NameScope, Role, Token, includes

VISITOR = "pacesetter.visitor"
"""The key of the visitor in an admitted request's scope."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A visitor of a page.

    Attributes:
        name: The author of the visitor's orders.
        role: What the visitor may do.
        scope: The names that the visitor may use.
        known: Whether there was a login; without tokens there is none.
    """

    name: str
    role: Role
    scope: NameScope = EVERYTHING
    known: bool = True

    def may(self, needed: Role) -> bool:
        """Return whether the visitor's role is sufficient."""
        return includes(self.role, needed)


UNKNOWN = Visitor("anonymous", "admin", known=False)
"""The visitor of a service without tokens."""


def visitor_with(token: Token) -> Visitor:
    """Return the visitor who holds a token; with bounds, only as a viewer: pages ignore bounds."""
    role: Role = token.role if token.bounds is None else "viewer"
    return Visitor(token.name, role, token.scope)


def visitor_of(request: HTTPConnection) -> Visitor:
    """Return the visitor of an admitted request."""
    found: Visitor = request.scope[VISITOR]
    return found


def refuse_below(needed: Role, visitor: Visitor) -> None:
    """Refuse a visitor whose role is not sufficient.

    Raises:
        ForbiddenError: It is not sufficient.
    """
    if not visitor.may(needed):
        raise ForbiddenError(visitor.role, needed)


def refuse_name(name: str, visitor: Visitor) -> None:
    """Refuse a name outside of a visitor's scope.

    Raises:
        OutOfScopeError: It is outside.
    """
    if not visitor.scope.holds(name):
        raise OutOfScopeError(name, visitor.scope.patterns)
