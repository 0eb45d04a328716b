"""What operators do with sessions as a whole: list, create, finish, label, archive and remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from pacesetter._info import SessionInfo
from pacesetter._notebook import StatusRow
from pacesetter._opening import path_of
from pacesetter._operation import (
    Call,
    Found,
    Listed,
    an_object,
    listing,
    nothing,
    operation,
)
from pacesetter._operations._paging import page_after, pages, session_of
from pacesetter._plain import Number, given, plain
from pacesetter._spec import Description, session_body

if TYPE_CHECKING:
    from typing import Unpack  # of Python 3.11


T = TypeVar("T")


class Sessions:
    """Sessions: which exist, and what becomes of them."""

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
        """Return what the server says about all sessions, page by page; `status` says how they do.

        Args:
            status: Only those that are `active`, `finished` or `archived`.
            label: Only those with this label, written `key:value`.
            name: Only those whose name matches: `*` stands for any characters, `?` for one.
            labels: Only those with all of these labels.
            states: Only those in one of these states: `running`, `silent`, `finished`, `failed` or
                `archived`.
            since: Only those written to or heard from since then: a moment, or seconds ago.
            sort: `"name"`, `"changed_at"` or `"created_at"`; with `-` before it, in descending
                order. By name if not given.

        Raises:
            InvalidRequestError: There is no such state or order, or the pattern is not valid.
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
            name: Only sessions whose name matches: `*` stands for any characters, `?` for one.
            labels: Only those with all of these labels.
            states: Only those in one of these states: `running`, `silent`, `finished`, `failed` or
                `archived`; all but the archived if not given.
            since: Only those written to or heard from since then: a moment, or seconds ago.
            sort: `"name"`, `"changed_at"` or `"created_at"`; with `-` before it, in descending
                order. By name if not given.

        Returns:
            `{"name", "state", "labels", "attempt", "revision", "step", "total_steps", "horizon",
            "lr", "metrics", "last_heard", "created_at", "changed_at", "ranks", "orders",
            "seconds_left"}` of each: `step` is the newest that was trained, `lr` has the values at
            it by series, `orders` says how many wait, and `seconds_left` is None where the pace is
            not known.

        Raises:
            InvalidRequestError: There is no such state or order, or the pattern is not valid.
        """
        params = {"view": "status", **_filters(name, labels, states, since, sort)}
        return pages("/v1/sessions", "sessions", params, StatusRow)

    @operation
    def status_of(self, name: str) -> Call[StatusRow]:
        """Return where a training stands, as a row of `status`.

        Raises:
            NotFoundError: There is no session of that name.
        """
        return Call("GET", path_of(name) + "/status", StatusRow)

    @operation
    def get(self, name: str) -> Call[SessionInfo]:
        """Return what the server says about a session; `Client.session` opens one to train with it.

        Raises:
            NotFoundError: There is no session of that name.
        """
        return Call("GET", path_of(name), session_of(name))

    @operation
    def create(
        self,
        name: str,
        *,
        attempt_key: str | None = None,
        **description: Unpack[Description],
    ) -> Call[SessionInfo]:
        """Create a session without training with it; repeating the call changes nothing.

        Args:
            name: 1 to 128 of `A-Za-z0-9._-`, unique on the server.
            attempt_key: What all ranks of its first attempt share, if that is known already.
            **description: What the session is, such as
                `base_lr=0.1, schedule={"kind": "constant"}`; `pacesetter.Description` lists every
                keyword.

        Returns:
            The session; its `warnings` are the known pitfalls of the description.

        Raises:
            ConflictError: The name is taken by a session of another description.
            InvalidRequestError: The description is refused; `.errors` says where.
            TypeError: Some of the keywords do not describe a session.
        """
        body = session_body(name, description) | given(attempt_key=attempt_key)
        return Call("POST", "/v1/sessions", session_of(name), body=body)

    @operation
    def archive(self, name: str) -> Call[None]:
        """Archive a session: it can be read for ever, but no longer sealed or reported to."""
        return Call("DELETE", path_of(name), nothing)

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
        """Say that the training of a session is over, as `Session.finish` does for its own.

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
        return Call("POST", path_of(name) + "/finish", session_of(name), body=body)

    @operation
    def relabel(self, name: str, labels: Mapping[str, str | None]) -> Call[SessionInfo]:
        """Set labels of a session, and remove those that are None; others stay."""
        body = {"labels": plain(labels, "labels")}
        return Call("PATCH", path_of(name), session_of(name), body=body)

    @operation
    def purge(self, name: str, *, dry_run: bool = False) -> Call[None]:
        """Remove an archived session for good; takes the role `admin`.

        Args:
            name: The session.
            dry_run: Only raise what would be raised.

        Raises:
            ConflictError: It is not archived, or forks share its steps.
            NotFoundError: There is no such session; the code of a repeated purge is
                `session_purged`.
        """
        body = {"dry_run": dry_run}
        return Call("POST", path_of(name) + "/purge", nothing, body=body)

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
        """Archive or purge old sessions, and return what was done; takes the role `admin`.

        Each session goes one step further. Nothing is done before the first result is asked for.

        Args:
            older_than: Seconds for which nothing was written to a session.
            states: Only those in these states.
            labels: Only those with all of these labels.
            purge: Remove for good those that are archived already; the others are archived.
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


def _prune(body: dict[str, Any]) -> Listed[dict[str, Any]]:
    token: str | None = ""
    while token is not None:
        page = yield Call("POST", "/v1/prune", an_object, body={**body, "page_token": token})
        token = page_after(page, "sessions", token)
        yield Found(page["sessions"])
