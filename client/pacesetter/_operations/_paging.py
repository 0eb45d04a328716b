"""Lists that come page by page, and how one session is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pacesetter._errors import misfit
from pacesetter._info import SessionInfo
from pacesetter._operation import Call, Found, Listed, an_object

T = TypeVar("T")


def session_of(name: str) -> Callable[[Any], SessionInfo]:
    """Return a function that reads the description of a session, which must have that name."""
    return lambda answer: SessionInfo.parse(answer, name)


def pages(path: str, items: str, params: Mapping[str, Any], read: Callable[[Any], T]) -> Listed[T]:
    """Go through a list, page by page.

    Args:
        path: The path of the list.
        items: The name of the list in the answer.
        params: The query, without the page's token.
        read: Turns an item into what the caller gets.
    """
    token: str | None = None
    while True:
        page = yield Call("GET", path, an_object, params={**params, "page_token": token})
        token = page_after(page, items, token)
        yield Found([_read(each, read, items) for each in page[items]])
        if not token:
            return


def _read(item: object, read: Callable[[Any], T], items: str) -> T:
    try:
        return read(item)
    except (TypeError, ValueError, AttributeError) as error:
        raise misfit(f"the server answered no page of {items} ({error})") from error


def page_after(page: Mapping[str, Any], items: str, token: str | None) -> str | None:
    """Return the token of the next page; None after the last.

    Raises:
        InvalidAnswerError: It is not a page, or is the same one again.
    """
    following = page.get("next_page_token")
    if not isinstance(page.get(items), list) or (token and following == token):
        raise misfit(f"the server answered no page of {items}")
    return None if following is None else str(following)
