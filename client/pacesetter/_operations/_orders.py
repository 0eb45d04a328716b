"""Orders of any kind: how one is sent, which of them wait, and how one is cancelled."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from pacesetter._opening import path_of
from pacesetter._operation import Call, an_object, listed_as, nothing, operation
from pacesetter._plain import given, plain


class Orders:
    """Orders of whichever action."""

    @operation
    def order(
        self,
        name: str,
        body: Mapping[str, Any],
        *,
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Order an action of any kind, in the form that the server takes.

        Args:
            name: The session.
            body: The action, such as
                `{"kind": "scale", "factor": 0.5, "reason": "the loss rises"}`.
            at: The first step that it holds for, where `body` does not say it.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        said = {**plain(body), **given(at=at, if_revision=if_revision)}
        return _sent(name, {**said, "dry_run": True} if dry_run else said, key)

    @operation
    def orders(self, name: str) -> Call[list[dict[str, Any]]]:
        """Return the orders that wait to be carried out, by step.

        Args:
            name: The session.

        Returns:
            `{"id", "at", "action", "actor", "reason", "text"}` of each.
        """
        return Call("GET", path_of(name) + "/actions", listed_as("orders"))

    @operation
    def cancel(self, name: str, order_id: SupportsIndex) -> Call[None]:
        """Cancel an order whose step was not handed out yet.

        Args:
            name: The session.
            order_id: Its number, as `orders` and the answer to the order have it.

        Raises:
            NotFoundError: No order of that number waits; also raised by a repeated cancellation.
        """
        path = f"{path_of(name)}/actions/{plain(order_id)}"
        return Call("DELETE", path, nothing)


def ordered(
    name: str,
    kind: str,
    fields: Mapping[str, Any],
    groups: Sequence[str] | None,
    reason: str,
    at: SupportsIndex | None,
    key: str | None,
    if_revision: SupportsIndex | None,
    *,
    dry_run: bool,
) -> Call[dict[str, Any]]:
    """Return the call that sends an order."""
    besides = given(
        groups=groups,
        reason=reason or None,
        at=at,
        dry_run=True if dry_run else None,
        if_revision=if_revision,
    )
    return _sent(name, {"kind": kind, **fields, **besides}, key)


def _sent(name: str, body: Mapping[str, Any], key: str | None) -> Call[dict[str, Any]]:
    headers = {"idempotency-key": secrets.token_hex(16) if key is None else key}
    path = path_of(name) + "/actions"
    return Call("POST", path, an_object, body=body, headers=headers)
