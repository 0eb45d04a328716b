"""What the tools ask the service, and what they say about its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pacesetter._errors import APIError, PacesetterError, misfit
from pacesetter._opening import path_of
from pacesetter._token import Token
from pacesetter._transport import Transport
from pacesetter.mcp._texts import cleaned

TIMEOUT = 20.0
"""Seconds that one exchange may take."""

ACTOR = "mcp"
"""The actor of orders, where the service asks for no token; otherwise the token's holder is."""

LONGEST_REFUSAL = 600
"""The most characters of a refusal by the service."""

T = TypeVar("T")


class Asking:
    """The service, as the tools call it.

    Args:
        url: Its address.

    Raises:
        ValueError: The address or the token cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._transport = Transport(url, timeout=TIMEOUT)
        self._headers = {} if Token.of(None) is not None else {"pacesetter-actor": ACTOR}

    def sessions(self, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - a query
        """Return a page of the status view."""
        return self._get("/v1/sessions", view="status", **params)

    def status(self, name: str) -> dict[str, Any]:
        """Return where the training of a session stands."""
        return self._get(path_of(name) + "/status")

    def of_session(self, name: str, what: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return what the service answers about a session: its `explain`, `history` and so on."""
        return self._get(f"{path_of(name)}/{what}", **params)

    def order(self, name: str, body: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Send an order, or rehearse it; with a key it takes effect once, however often it is sent.

        Raises:
            TransportError: It is not known whether the order arrived.
            APIError: It was refused.
        """
        headers = {**({"idempotency-key": key} if key else {}), **self._headers}
        path = path_of(name) + "/actions"
        content = self._transport.send_once("POST", path, body=body, headers=headers)
        answer = read(lambda: json.loads(content))
        if not isinstance(answer, dict):
            raise misfit("the answer to an order is no JSON object")
        return answer

    def _get(self, path: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - a query
        return self._transport.json("GET", path, params=params)


def read(make: Callable[[], T]) -> T:
    """Return what is read from an answer.

    Raises:
        InvalidAnswerError: This version cannot read the answer.
    """
    try:
        return make()
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise misfit(f"the answer cannot be read ({type(error).__name__})") from error


def said(error: PacesetterError) -> str:
    """Say why a call failed. The service's words may quote what others wrote, so they are data."""
    text = json.dumps(cleaned(str(error))[:LONGEST_REFUSAL], ensure_ascii=False)
    if not isinstance(error, APIError):
        return f"The service could not be asked. What is known of it: {text}"
    return f"Refused with {error.status} {error.code}. The service's words, as data: {text}"
