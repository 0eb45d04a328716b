"""Access tokens: made for a caller in a role, listed and revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pacesetter._operation import Call, an_object, listed_as, nothing, operation
from pacesetter._plain import Number, given


class Tokens:
    """Access tokens; all of this takes the role `admin`."""

    @operation
    def tokens(self) -> Call[list[dict[str, Any]]]:
        """Return the tokens without their secrets, the oldest first.

        Returns:
            `{"id", "name", "role", "created_at", "expires_at", "scope", "last_used_at",
            "bounds"}` of each.
        """
        return Call("GET", "/v1/tokens", listed_as("tokens"))

    @operation
    def create_token(
        self,
        name: str,
        role: str,
        *,
        expires_in: Number | None = None,
        expires_in_days: Number | None = None,
        expires_at: datetime | str | None = None,
        scope: Sequence[str] = (),
        bounds: Mapping[str, Any] | None = None,
    ) -> Call[dict[str, Any]]:
        """Make a token; its secret is in this answer, as `token`, and nowhere else.

        It is valid until it is revoked, or for as long as one of the three keywords says.

        Args:
            name: The name of the holder, who is the author of what is ordered with the token.
            role: `"viewer"`, `"trainer"`, `"operator"` or `"admin"`; each includes those before it.
            expires_in: Seconds for which it is valid;
            expires_in_days: or days;
            expires_at: or the moment from which it is no longer valid, with its offset.
            scope: Names of the sessions and templates that the holder may access, such as
                `["team-a-*"]`; every name by default.
            bounds: The most that may be ordered with it, such as `{"factor_range": [0.5, 2.0],
                "changes": {"count": 3, "per_steps": 1000}, "actions": ["scale"]}`; by default,
                whatever the role allows.

        Returns:
            `{"id", "name", "role", "token", ...}`.

        Raises:
            InvalidRequestError: The request is refused; `.errors` says where.
            TransportError: The connection was lost. The call is not retried by itself, since each
                call makes a token: `tokens()` shows whether one was made that must be revoked.
        """
        body = given(
            name=name,
            role=role,
            expires_in=expires_in,
            expires_in_days=expires_in_days,
            expires_at=expires_at,
            scope=list(scope) or None,
            bounds=bounds,
        )
        return Call("POST", "/v1/tokens", an_object, body=body, repeatable=False)

    @operation
    def revoke_token(self, token_id: str) -> Call[None]:
        """Revoke a token: from now on it is not valid, and feeds that it has opened end.

        Args:
            token_id: Its id, which is part of its secret too.

        Raises:
            NotFoundError: There is no such token; also raised by a repeated call.
        """
        return Call("DELETE", "/v1/tokens/" + quote(token_id, safe=""), nothing)
