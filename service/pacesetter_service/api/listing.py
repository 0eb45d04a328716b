"""Which sessions a list has: the filters, the order and the pages that all lists share."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Depends, Query

from pacesetter_service.api import paging
from pacesetter_service.api.context import Label, Names
from pacesetter_service.core.status import State
from pacesetter_service.core.tokens import NamePattern
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries.listing import EVERY_STATE, SORTS, Place, Question, Sort

StateName = Literal["running", "active", "silent", "finished", "failed", "archived"]
"""The names of states; `running` is another name for `active`."""

LONGEST_AGO = 3_155_760_000.0
"""A hundred years in seconds: nothing was written longer ago."""


async def _asked(
    names: Names,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    page_token: Annotated[str, Query(max_length=512)] = "",
    status: Literal["active", "finished", "archived"] | None = None,
    label: Annotated[
        list[Label] | None,
        Query(max_length=16, description="`name:value`; repeated, all of them must hold"),
    ] = None,
    name: Annotated[
        NamePattern | None,
        Query(description="a pattern of names: `*` for any characters, `?` for one"),
    ] = None,
    state: Annotated[
        list[StateName] | None,
        Query(max_length=8, description="repeated, one of them must hold"),
    ] = None,
    since: Annotated[
        str | None,
        Query(
            max_length=64,
            description="written or heard of since then: a time (RFC 3339), or seconds ago",
        ),
    ] = None,
    sort: Annotated[
        Sort, Query(description="with `-` from the last to the first; equal ones by name")
    ] = "name",
) -> Question:
    """Read which sessions a list has."""
    return Question(
        limit=limit,
        names=names,
        matching=name,
        labels=[label_of(each) for each in label or ()],
        status=status,
        states=EVERY_STATE if state is None else frozenset(map(_state, state)),
        since=None if since is None else _moment(since),
        sort=sort,
        behind=_place(page_token, sort),
    )


Asked = Annotated[Question, Depends(_asked)]
"""Which sessions a call asks for."""


def token_of(sort: Sort, behind: Place | None) -> str | None:
    """Return the token of the page after a place; None if there is none.

    It contains the key of the last session on the page. So the next page goes on from there,
    whatever was created, changed or archived meanwhile.
    """
    if behind is None:
        return None
    return paging.token_of(behind.name if sort == "name" else " ".join((sort, *behind)))


def _place(token: str, sort: Sort) -> Place | None:
    text = paging.place_in(token)
    if not text:
        return None
    parts = text.split(" ")
    if len(parts) == 1:
        parts = ["name", text, text]
    if len(parts) != 3 or parts[0] not in SORTS:
        raise paging.no_token()
    by, key, name = parts
    if by != sort:
        raise ArgumentError("page_token", f"This page is of a list with `sort={by}`; keep that")
    return Place(key, name)


def label_of(text: str) -> tuple[str, str]:
    """Return the name and the value of a label in the form `name:value`."""
    name, _, value = text.partition(":")
    return name, value


def _state(name: StateName) -> State:
    return "active" if name == "running" else name


def _moment(text: str) -> datetime:
    """Read a time, given as such or as the number of seconds before now.

    Raises:
        ArgumentError: It is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        return _time_of_day(text)
    if not 0 <= seconds <= LONGEST_AGO:
        raise ArgumentError("since", "Give the seconds ago as a number that is not below 0")
    return datetime.now(UTC) - timedelta(seconds=seconds)


def _time_of_day(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = "Give a time with its zone, such as 2026-01-31T12:00:00Z, or seconds ago"
        raise ArgumentError("since", message)
    return moment.astimezone(UTC)
