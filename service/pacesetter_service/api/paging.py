"""Page tokens: where a page of a list ended, in a form that callers need not understand."""

import base64

from pacesetter_service.runtime.arguments import ArgumentError

NEXT = "what the next page is asked for with, as `page_token`; null on the last page"
"""The description of `next_page_token` in an answer."""


WHOLE = "null: the list is whole; here because every list has it"
"""The same for a list without pages."""


def token_of(place: object) -> str:
    """Return the token of the page that begins at a place of a list."""
    return base64.urlsafe_b64encode(str(place).encode()).decode()


def place_in(token: str) -> str:
    """Return the place in a token; empty for the empty token.

    Raises:
        ArgumentError: It is not a token.
    """
    try:
        place = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise no_token() from error
    if "\0" in place:  # PostgreSQL cannot search for it
        raise no_token()
    return place


def number_in(token: str, most: int) -> int | None:
    """Return the number in a token, which is at most `most`; None for the empty token.

    Raises:
        ArgumentError: It is not a token.
    """
    text = place_in(token)
    if text and not (text.isascii() and text.isdigit() and int(text) <= most):
        raise no_token()
    return int(text) if text else None


def no_token() -> ArgumentError:
    """Return the error for a text that is not a token."""
    message = "This is no page token; use next_page_token of the page before"
    return ArgumentError("page_token", message)
