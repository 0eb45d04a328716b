"""Going on from a step, in a session or in a new one; and the ranks of a training."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, SupportsIndex

from pacesetter._info import SessionInfo
from pacesetter._opening import path_of
from pacesetter._operation import Call, Several, an_object, listed_as, operation
from pacesetter._operations._paging import page_after, session_of
from pacesetter._plain import Number, given


class Attempts:
    """Forks, restarts, attempts and ranks of sessions."""

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
        """Create a session that shares the past of another one, and then goes on independently.

        Args:
            name: The session whose past is shared.
            new_name: The name of the fork.
            step: The fork's own first step.
            labels: Its labels; by default those of the session.
            description: What differs from that step on, as for `create`.
            attempt_key: The key that all ranks of its first attempt share.

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
        return Call("POST", path, session_of(new_name), body=body)

    @operation
    def rehearse_fork(
        self,
        name: str,
        new_name: str,
        *,
        step: SupportsIndex,
        labels: Mapping[str, str] | None = None,
        description: Mapping[str, Any] | None = None,
        attempt_key: str | None = None,
    ) -> Call[dict[str, Any]]:
        """Return what `fork` would do with the same arguments; nothing is made.

        Returns:
            `{"start", "before", "after", "kept", "warnings", "revision"}`: `before` is the curve of
            the session from the step on, `after` that of the fork, each `{"steps", "series"}`, and
            `kept` has for each series the factor on its rate that stays in force.

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
            dry_run=True,
        )
        return Call("POST", path_of(name) + "/fork", an_object, body=body)

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

        The trainers of earlier attempts can then neither seal nor report. A training goes back by
        itself when it loads a checkpoint; see `Session.restart`.

        Args:
            name: The session.
            step: The first step that is trained again.
            key: What all ranks of the restart share; the same key gives the same attempt. By
                default each call has its own.
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
        return Call("POST", path, session_of(name), body=body)

    @operation
    def attempts(self, name: str) -> Call[list[dict[str, Any]]]:
        """Return the attempts of a session; the first one began when it was created.

        Returns:
            `{"attempt", "start", "key", "actor", "created_at"}` of each, where `start` is its first
            step.
        """
        return Call("GET", path_of(name) + "/attempts", listed_as("attempts"))

    @operation
    def take_back(
        self, name: str, *, reason: str = "", dry_run: bool = False
    ) -> Call[dict[str, Any]]:
        """Take back the sealed steps that no trainer holds, so that orders may change them.

        Args:
            name: The session.
            reason: Why, for the record.
            dry_run: Only answer what it would do.

        Returns:
            `{"horizon", "until", "attempt", "revision"}`: the steps from `horizon` to before
            `until` are open again.

        Raises:
            ConflictError: Trainers hold all that is sealed; also raised by a repeated call.
        """
        body = given(reason=reason or None, dry_run=True if dry_run else None)
        return Call("POST", path_of(name) + "/take-back", an_object, body=body)

    @operation
    def ranks(
        self,
        name: str,
        *,
        stale_after: Number | None = None,
        max_behind: SupportsIndex | None = None,
        limit: int | None = None,
    ) -> Several[dict[str, Any]]:
        """Return where the ranks of a training are, and which train with other values than sealed.

        Args:
            name: The session.
            stale_after: Seconds of silence that make a rank stale; 60 by default.
            max_behind: Steps behind the foremost that make a rank stale; any by default.
            limit: How many ranks are listed individually at most; all of them by default.

        Returns:
            `{"attempt", "horizon", "revision", "since", "summary", "ranks"}`: the summary counts
            the ranks that are expected, seen, stale and deviating.
        """
        return _ranks(path_of(name) + "/ranks", stale_after, max_behind, limit)


def _ranks(
    path: str,
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
        page = yield Call("GET", path, an_object, params=asked)
        token = page_after(page, "ranks", token)
        shown = {**page, "ranks": [*found.get("ranks", ()), *page["ranks"]][:limit]}
        found = {key: shown[key] for key in shown if key != "next_page_token"}
        if not token or (limit is not None and len(found["ranks"]) >= limit):
            return found
