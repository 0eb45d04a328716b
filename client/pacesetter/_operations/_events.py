"""What has happened, to one session or to all, and what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pacesetter._errors import InvalidAnswerError, misfit
from pacesetter._events import next_number
from pacesetter._opening import path_of
from pacesetter._operation import Call, Feed, Found, Listed, an_object, listing
from pacesetter._plain import given

ALL = "/v1/events"
OLDEST = "0"
"""The cursor before the first event of all sessions."""

PAGE = 200
"""How many events are asked for at a time: a caller that wants ten must not wait for a thousand."""


class Events:
    """The log of one session, or of all of them together."""

    @listing
    def events(
        self,
        name: str | None = None,
        *,
        after: int | str | None = None,
        follow: bool = False,
        kinds: Sequence[str] = (),
        session: str | None = None,
        actor: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Listed[dict[str, Any]] | Feed[dict[str, Any]]:
        """Return what has happened, in order: to a session, or without a name to all of them.

        Each event has its number in its session's log as `seq`, and `kind`, `at`, `attempt`,
        `created_at` and `text`; those of all sessions also have `session` and their `cursor`.

        Args:
            name: The session; None for all.
            after: The `seq`, or for all sessions the `cursor`, of the last event that is left out;
                by default none is. `"now"`, to follow all sessions, leaves out what has happened
                before the connection was made.
            follow: Go on with what happens next, without an end. A lost connection is resumed after
                the last event: none is missed, none comes twice.
            kinds: Only events of these kinds, such as `["ordered", "acted"]`.
            session: For all sessions: only those whose name matches; `*` stands for any characters.
            actor: For all sessions: only what this actor has ordered or done.
            labels: For all sessions: only those with all of these labels.

        Raises:
            NotFoundError: There is no session of that name.
            InvalidRequestError: There is no such kind.
            ServerUnavailableError: The server was away for `retry_for` seconds.
            ValueError: An argument was given that is for all sessions only, or `after` is "now"
                and `follow` is not set.
            TypeError: `after` is not a number, where a session was named.
        """
        wanted = [kinds] if isinstance(kinds, str) else list(kinds)
        if name is None:
            named = [f"{key}:{value}" for key, value in labels.items()] if labels else None
            params = given(session=session, actor=actor, label=named, kind=wanted or None)
            return _of_all(params, after, follow=follow)
        if session is not None or actor is not None or labels is not None:
            raise ValueError(
                "session=, actor= and labels= choose among all sessions: leave name out"
            )
        path, last = path_of(name) + "/events", -1 if after is None else _number(after)
        if follow and wanted:  # kinds are filtered here, so the server is asked first
            known = Call("GET", path, an_object, params={"kind": wanted, "limit": 1})
            return Feed(path + "/stream", last, next_number, frozenset(wanted), before=known)
        if follow:
            return Feed(path + "/stream", last, next_number)
        return _log(path, last, wanted)


def _number(after: int | str) -> int:
    if isinstance(after, str):
        raise TypeError(f"after={after!r}: give the `seq` of an event of the session")
    return int(after)


def _log(path: str, after: int, kinds: list[str]) -> Listed[dict[str, Any]]:
    params: dict[str, Any] = {"after": after, "limit": PAGE, "kind": kinds or None}
    token: str | None = None
    while True:
        asked = {**params, "page_token": token}
        page = yield Call("GET", path, an_object, params=asked)
        events, following = page.get("events"), page.get("next_page_token")
        if not isinstance(events, list) or (token and following == token):
            raise misfit("the server answered no page of events")
        for event in events if not kinds else ():
            after = next_number(event, after)
        yield Found(events)
        if not following:
            return
        token = following


def _of_all(
    params: Mapping[str, Any], after: int | str | None, *, follow: bool
) -> Listed[dict[str, Any]] | Feed[dict[str, Any]]:
    if after == "now":
        if not follow:
            raise ValueError('after="now" is for what is followed: nothing has happened since')
        return Feed(ALL + "/stream", None, _later, params=params)
    cursor = OLDEST if after is None else str(after)
    if follow:
        return Feed(ALL + "/stream", cursor, _later, params=params)
    return _log_of_all(params, cursor)


def _log_of_all(params: Mapping[str, Any], cursor: str) -> Listed[dict[str, Any]]:
    more = True
    while more:
        asked = {**params, "after": cursor, "limit": PAGE}
        page = yield Call("GET", ALL, an_object, params=asked)
        events, more, behind = page.get("events"), page.get("more"), page.get("cursor")
        if not isinstance(events, list) or (more and behind == cursor):
            raise misfit("the server answered no page of events")
        cursor = str(behind)
        yield Found(events)


def _later(event: Any, after: str | None) -> str:  # noqa: ANN401 - whatever the server answered
    """Return the place of an event, which must lie after the one before.

    Raises:
        InvalidAnswerError: It does not.
    """
    cursor = event.get("cursor") if isinstance(event, dict) else None
    known = int(after or OLDEST)
    if not (isinstance(cursor, str) and cursor.isdecimal() and int(cursor) > known):
        raise InvalidAnswerError(
            f"an event behind cursor {known} should have come, but {cursor!r} did: none may come"
            " twice, so see whether the server's database was put back to an earlier state"
        )
    return cursor
