"""The access token: where it comes from, what one looks like, and how it is kept secret."""

from __future__ import annotations

import os
from typing import NoReturn

VARIABLE = "PACESETTER_TOKEN"
_HIDDEN = b"[token]"


class Token:
    """A secret that proves to the server who asks; it shows in no text and goes into no pickle.

    Args:
        secret: Visible ASCII characters, without spaces.
        source: Where it was given, for the message.

    Raises:
        ValueError: It cannot be sent in a header.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str, source: str = "token") -> None:
        if not secret or not all("!" <= each <= "~" for each in secret):
            raise ValueError(
                f"{source} is no access token: it must be one or more visible ASCII characters, "
                "without spaces or line breaks; see whether it was copied whole, and alone"
            )
        self._secret = secret

    @classmethod
    def of(cls, given: str | None) -> Token | None:
        """Return the token given, else the environment's, else None.

        Raises:
            ValueError: It is none.
        """
        if given is not None:
            return cls(given)
        found = os.environ.get(VARIABLE)
        return cls(found, VARIABLE) if found else None

    @property
    def header(self) -> str:
        """What the `Authorization` header says."""
        return f"Bearer {self._secret}"

    def hidden_in(self, content: bytes) -> bytes:
        """Return an answer's text without the token, which an error page may repeat."""
        return content.replace(self._secret.encode(), _HIDDEN)

    def __repr__(self) -> str:
        return "<Token>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"an access token goes into no pickle: set {VARIABLE} where the copy is to run"
        )
