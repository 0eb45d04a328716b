"""What operators do with sessions as a whole: list, create, fork, go back, put away."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from pacesetter._errors import misfit
from pacesetter._info import SessionInfo
from pacesetter._notebook import StatusRow
from pacesetter._numbers import Number, given, plain
from pacesetter._opening import path_of
from pacesetter._operation import (
    Call,
    Found,
    Listed,
    Several,
    an_object,
    listed_as,
    listing,
    nothing,
    operation,
)
from pacesetter._spec import Description, session_body

if TYPE_CHECKING:
    from typing import Unpack  # of Python 3.11


T = TypeVar("T")


class Sessions:
    """Sessions: which there are, and what becomes of them."""

    @listing
    def sessions(
        self,
        *,
        status: str | None = None,
        label: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        states: Sequence[str] = (),
        since: str | datetime | Number | None = None,
        sort: str | None = None,
    ) -> Listed[SessionInfo]:
        """Return what the server says about all sessions, page by page; `status` tells how they do.

        Args:
            status: Only those `active`, `finished` or `archived`.
            label: Only those with it, written `key:value`.
            name: Only those whose name fits: `*` stands for any characters, `?` for one.
            labels: Only those with all of these labels.
            states: Only those in one of these states: `running`, `silent`, `finished`, `failed` or
                `archived`.
            since: Only those written to or heard of since then: a moment, or seconds ago.
            sort: `"name"`, `"changed_at"` or `"created_at"`; with `-` before it from the last to
                the first. By name if not given.

        Raises:
            InvalidRequestError: There is no such state or order, or the pattern is none.
        """
        params = _filters(name, labels, states, since, sort)
        params |= given(status=status)
        if label is not None:
            params["label"] = [label, *params.get("label", ())]
        return pages("/v1/sessions", "sessions", params, SessionInfo.parse)

    @listing
    def status(
        self,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        states: Sequence[str] = (),
        since: str | datetime | Number | None = None,
        sort: str | None = None,
    ) -> Listed[StatusRow]:
        """Return where trainings stand, a row for each, page by page.

        Args:
            name: Only sessions whose name fits: `*` stands for any characters, `?` for one.
            labels: Only those with all of these labels.
            states: Only those in one of these states: `running`, `silent`, `finished`, `failed` or
                `archived`; all but the archived if not given.
            since: Only those written to or heard of since then: a moment, or seconds ago.
            sort: `"name"`, `"changed_at"` or `"created_at"`; with `-` before it from the last to
                the first. By name if not given.

        Returns:
            `{"name", "state", "labels", "attempt", "revision", "step", "total_steps", "horizon",
            "lr", "metrics", "last_heard", "created_at", "changed_at", "ranks", "orders",
            "seconds_left"}` of each: `step` is the newest that was trained, `lr` the values at it
            by series, `orders` how many wait, `seconds_left` None where the pace is not known.

        Raises:
            InvalidRequestError: There is no such state or order, or the pattern is none.
        """
        params = {"view": "status", **_filters(name, labels, states, since, sort)}
        return pages("/v1/sessions", "sessions", params, StatusRow)

    @operation
    def status_of(self, name: str) -> Call[StatusRow]:
        """Return where a training stands, as a row of `status`.

        Raises:
            NotFoundError: There is no session of that name.
        """
        return Call("GET", path_of(name) + "/status", StatusRow, session=name)

    @operation
    def get(self, name: str) -> Call[SessionInfo]:
        """Return what the server says about a session; `Client.session` opens one to train by it.

        Raises:
            NotFoundError: There is none of that name.
        """
        return Call("GET", path_of(name), _session(name), session=name)

    @operation
    def create(
        self,
        name: str,
        *,
        attempt_key: str | None = None,
        **description: Unpack[Description],
    ) -> Call[SessionInfo]:
        """Create a session without training by it; the same again changes nothing.

        Args:
            name: 1 to 128 of `A-Za-z0-9._-`, unique on the server.
            attempt_key: What all ranks of its first attempt share, if that is known already.
            **description: What it is, such as `base_lr=0.1, schedule={"kind": "constant"}`; every
                keyword is told by `pacesetter.Description`.

        Returns:
            The session; its `warnings` are the known pitfalls of the description.

        Raises:
            ConflictError: The name is taken by a session of another description.
            InvalidRequestError: The description is refused; `.errors` says where.
            TypeError: A session cannot be described by some of the keywords.
        """
        body = session_body(name, description) | given(attempt_key=attempt_key)
        return Call("POST", "/v1/sessions", _session(name), body=body)

    @operation
    def fork(
        self,
        name: str,
        new_name: str,
        *,
        step: SupportsIndex,
        labels: Mapping[str, str] | None = None,
        description: Mapping[str, Any] | None = None,
        attempt_key: str | None = None,
    ) -> Call[SessionInfo]:
        """Create a session that shares the past of another one, and goes on by itself.

        Args:
            name: The session whose past is shared.
            new_name: What the fork is called.
            step: The first step of its own.
            labels: Its labels; by default those of the session.
            description: What is to differ from that step on, as for `create`.
            attempt_key: What all ranks of its first attempt share.

        Raises:
            ConflictError: The name is taken by another session.
            InvalidRequestError: The session has no such step, or cannot go on like that.
        """
        body = given(
            name=new_name,
            step=step,
            labels=labels,
            description=description,
            attempt_key=attempt_key,
        )
        path = path_of(name) + "/fork"
        return Call("POST", path, _session(new_name), body=body, session=name)

    @operation
    def restart(
        self,
        name: str,
        *,
        step: SupportsIndex,
        key: str | None = None,
        drop_actions: bool = False,
        batch_size: SupportsIndex | None = None,
    ) -> Call[SessionInfo]:
        """Send a session back to a step: a new attempt begins there, for its next trainers.

        The trainers of earlier attempts can neither seal nor report any more. A training goes back
        by itself when it loads a checkpoint; see `Session.restart`.

        Args:
            name: The session.
            step: The first step that is trained again.
            key: What all ranks of the restart share; the same key gives the same attempt. By
                default one of its own for each call.
            drop_actions: Forget the orders for that step and later ones; takes the role `operator`.
            batch_size: Samples in one step from then on.

        Raises:
            StaleAttemptError: A later attempt has taken over from the one of that key.
            InvalidRequestError: No job has trained up to that step.
        """
        body = given(
            step=step,
            key=secrets.token_hex(16) if key is None else key,
            drop_actions=True if drop_actions else None,
            batch_size=batch_size,
        )
        path = path_of(name) + "/attempts"
        return Call("POST", path, _session(name), body=body, session=name)

    @operation
    def attempts(self, name: str) -> Call[list[dict[str, Any]]]:
        """Return the attempts of a session; the first one began with it.

        Returns:
            `{"attempt", "start", "key", "actor", "created_at"}` of each, where `start` is its first
            step.
        """
        return Call("GET", path_of(name) + "/attempts", listed_as("attempts"), session=name)

    @operation
    def take_back(
        self, name: str, *, reason: str = "", dry_run: bool = False
    ) -> Call[dict[str, Any]]:
        """Open the sealed steps again that no trainer holds, so that orders may change them.

        Args:
            name: The session.
            reason: Why, for the record.
            dry_run: Only answer what it would do.

        Returns:
            `{"horizon", "until", "attempt", "revision"}`: the steps from `horizon` to before
            `until` are open again.

        Raises:
            ConflictError: Trainers hold all that is sealed; so too after a call that was repeated.
        """
        body = given(reason=reason or None, dry_run=True if dry_run else None)
        return Call("POST", path_of(name) + "/take-back", an_object, body=body, session=name)

    @operation
    def ranks(
        self,
        name: str,
        *,
        stale_after: Number | None = None,
        max_behind: SupportsIndex | None = None,
        limit: int | None = None,
    ) -> Several[dict[str, Any]]:
        """Return where the ranks of a training are, and who trains with other values than sealed.

        Args:
            name: The session.
            stale_after: Seconds of silence that make a rank stale; 60 by default.
            max_behind: Steps behind the foremost that make a rank stale; any by default.
            limit: How many ranks are shown one by one at most; all of them by default.

        Returns:
            `{"attempt", "horizon", "revision", "since", "summary", "ranks"}`: the summary counts
            those that were expected, seen, stale, deviating.
        """
        return _ranks(path_of(name) + "/ranks", name, stale_after, max_behind, limit)

    @operation
    def archive(self, name: str) -> Call[None]:
        """End a session: it can be read for ever, but neither sealed further nor reported to."""
        return Call("DELETE", path_of(name), nothing, session=name)

    @operation
    def finish(
        self,
        name: str,
        *,
        outcome: str = "completed",
        reason: str = "",
        step: SupportsIndex | None = None,
        attempt: SupportsIndex | None = None,
        when_over: bool = False,
    ) -> Call[SessionInfo]:
        """Say that the training of a session is over, as `Session.finish` does of one's own.

        Args:
            name: The session.
            outcome: `"completed"` or `"failed"`.
            reason: Why it ended, in a line; for the record.
            step: The first step that was not trained; by default the first that no trainer holds.
            attempt: The attempt that was trained; the running one by default.
            when_over: Change nothing unless the plan is over at that step.
        """
        body = given(
            outcome=outcome,
            reason=reason,
            step=step,
            attempt=attempt,
            when_over=True if when_over else None,
        )
        return Call("POST", path_of(name) + "/finish", _session(name), body=body, session=name)

    @operation
    def relabel(self, name: str, labels: Mapping[str, str | None]) -> Call[SessionInfo]:
        """Set labels of a session, or take away those that are None; others stay."""
        body = {"labels": plain(labels, "labels")}
        return Call("PATCH", path_of(name), _session(name), body=body, session=name)

    @operation
    def purge(self, name: str, *, dry_run: bool = False) -> Call[None]:
        """Remove an archived session for good; takes the role `admin`.

        Args:
            name: The session.
            dry_run: Only raise what would be raised.

        Raises:
            ConflictError: It is not archived, or forks share its steps.
            NotFoundError: There is none; after a purge that was repeated, `session_purged`.
        """
        body = {"dry_run": dry_run}
        return Call("POST", path_of(name) + "/purge", nothing, body=body, session=name)

    @listing
    def prune(
        self,
        *,
        older_than: Number,
        states: Sequence[str] = ("finished", "failed", "archived"),
        labels: Mapping[str, str] | None = None,
        purge: bool = False,
        dry_run: bool = False,
    ) -> Listed[dict[str, Any]]:
        """Put old sessions away, one step each, and return what was done; takes the role `admin`.

        Nothing is done before the first of them is asked for.

        Args:
            older_than: Seconds for which nothing of a session was written.
            states: Those in these states.
            labels: Those with all of these labels.
            purge: Remove for good those that are archived already; what is not is archived.
            dry_run: Only say what would be done.

        Returns:
            `{"name", "state", "changed_at", "step", "bytes", "reason"}` of each; its `step` is
            `"archive"`, `"purge"`, or `"keep"` for the `reason`.
        """
        body = given(
            older_than=older_than,
            states=list(states),
            labels=labels or {},
            purge=purge,
            dry_run=dry_run,
        )
        return _prune(body)


def _filters(
    name: str | None,
    labels: Mapping[str, str] | None,
    states: Sequence[str],
    since: str | datetime | Number | None,
    sort: str | None,
) -> dict[str, Any]:
    """Return the query that asks for some sessions only."""
    named = [f"{key}:{value}" for key, value in labels.items()] if labels else None
    wanted = [states] if isinstance(states, str) else list(states)
    return given(name=name, label=named, state=wanted or None, since=since, sort=sort)


def _session(name: str) -> Callable[[Any], SessionInfo]:
    """Return what reads the description of a session, which must be the one of that name."""
    return lambda answer: SessionInfo.parse(answer, name)


def pages(path: str, items: str, params: Mapping[str, Any], read: Callable[[Any], T]) -> Listed[T]:
    """Go through a list, page by page.

    Args:
        path: Where it is.
        items: What the answer calls them.
        params: The query besides the page's token.
        read: Makes of an item what the caller gets.
    """
    token: str | None = None
    while True:
        page = yield Call("GET", path, an_object, params={**params, "page_token": token})
        token = _refused_if_endless(page, items, token)
        yield Found([_read(each, read, items) for each in page[items]])
        if not token:
            return


def _read(item: object, read: Callable[[Any], T], items: str) -> T:
    try:
        return read(item)
    except (TypeError, ValueError, AttributeError) as error:
        raise misfit(f"the server answered no page of {items} ({error})") from error


def _prune(body: dict[str, Any]) -> Listed[dict[str, Any]]:
    token: str | None = ""
    while token is not None:
        page = yield Call("POST", "/v1/prune", an_object, body={**body, "page_token": token})
        token = _refused_if_endless(page, "sessions", token)
        yield Found(page["sessions"])


def _ranks(
    path: str,
    name: str,
    stale_after: Number | None,
    max_behind: SupportsIndex | None,
    limit: int | None,
) -> Several[dict[str, Any]]:
    params = given(stale_after=stale_after, max_behind=max_behind)
    token: str | None = None
    found: dict[str, Any] = {}
    while True:
        most = None if limit is None else min(1_000, max(1, limit - len(found.get("ranks", ()))))
        asked = {**params, "limit": most, "page_token": token}
        page = yield Call("GET", path, an_object, params=asked, session=name)
        token = _refused_if_endless(page, "ranks", token)
        shown = {**page, "ranks": [*found.get("ranks", ()), *page["ranks"]][:limit]}
        found = {key: shown[key] for key in shown if key != "next_page_token"}
        if not token or (limit is not None and len(found["ranks"]) >= limit):
            return found


def _refused_if_endless(page: Mapping[str, Any], items: str, token: str | None) -> str | None:
    """Return the token of the next page; None behind the last.

    Raises:
        InvalidAnswerError: It is no page, or the same one again.
    """
    following = page.get("next_page_token")
    if not isinstance(page.get(items), list) or (token and following == token):
        raise misfit(f"the server answered no page of {items}")
    return None if following is None else str(following)
