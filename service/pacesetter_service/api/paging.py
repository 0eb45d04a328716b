"""Page tokens: what a page of a list ended with, in a form that callers need not understand."""

import base64

from pacesetter_service.runtime.arguments import ArgumentError

NEXT = "what the next page is asked for with, as `page_token`; null on the last page"
"""What an answer says of its `next_page_token`."""


WHOLE = "null: the list is whole; here because every list has it"
"""The same, of a list that has no pages."""


def token_of(place: object) -> str:
    """Return the token of the page that goes on at a place of a list."""
    return base64.urlsafe_b64encode(str(place).encode()).decode()


def place_in(token: str) -> str:
    """Return the place that a token names; empty for the empty one.

    Raises:
        ArgumentError: It is no token.
    """
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise no_token() from error


def number_in(token: str, most: int) -> int | None:
    """Return the number that a token names, which is not above `most`; None for the empty one.

    Raises:
        ArgumentError: It is no token.
    """
    text = place_in(token)
    if text and not (text.isascii() and text.isdigit() and int(text) <= most):
        raise no_token()
    return int(text) if text else None


def no_token() -> ArgumentError:
    """Return the error that says that this is no token."""
    message = "This is no page token; use next_page_token of the page before"
    return ArgumentError("page_token", message)
