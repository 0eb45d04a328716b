"""The access token: where it comes from, what one looks like, and how it is kept secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

VARIABLE = "PACESETTER_TOKEN"
FILE_VARIABLE = "PACESETTER_TOKEN_FILE"
MOST_OF_A_FILE = 65_536
_HIDDEN = b"[token]"


class Token:
    """A secret that proves to the server who asks; it appears in no text and goes into no pickle.

    Args:
        secret: Visible ASCII characters, without spaces.
        source: Where it was given, for the error message.
        file: The file to read it from again when the server refuses it; None if it is in no file.

    Raises:
        ValueError: It cannot be sent in a header.
    """

    __slots__ = ("_file", "_secret")

    def __init__(self, secret: str, source: str = "token", file: Path | None = None) -> None:
        self._secret = _checked(secret, source)
        self._file = file

    @classmethod
    def of(cls, given: str | None) -> Token | None:
        """Return the token given, else the environment's or that of the file it names, else None.

        Raises:
            ValueError: It is not a token, cannot be read, or the environment has two.
        """
        if given is not None:
            return cls(given)
        found, path = os.environ.get(VARIABLE), os.environ.get(FILE_VARIABLE)
        if found and path:
            raise ValueError(f"{VARIABLE} and {FILE_VARIABLE} are both set: unset one of them")
        if path:
            return cls.in_file(Path(path))
        return cls(found, VARIABLE) if found else None

    @classmethod
    def in_file(cls, path: Path) -> Token:
        """Return the token that a file holds, with or without a newline at its end.

        Raises:
            ValueError: The file cannot be read, or holds no token.
        """
        return cls(_secret_in(path), _source(path), path)

    @property
    def file(self) -> Path | None:
        """The file to read it from again; None if it is in no file."""
        return self._file

    def is_newer_than(self, header: str) -> bool:
        """Return whether the file now holds another token than a request was sent with.

        A file that cannot be read now, as in the middle of its replacement, holds no other one.
        """
        if self._file is not None and header == self.header:
            try:
                self._secret = _checked(_secret_in(self._file), _source(self._file))
            except ValueError:
                return False
        return header != self.header

    @property
    def header(self) -> str:
        """The value of the `Authorization` header."""
        return f"Bearer {self._secret}"

    def hidden_in(self, content: bytes, header: str) -> bytes:
        """Return an answer's text without the token and the one that its request was sent with."""
        for secret in (self._secret, header.removeprefix("Bearer ")):
            content = content.replace(secret.encode(), _HIDDEN) if secret else content
        return content

    def __repr__(self) -> str:
        return "<Token>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"an access token goes into no pickle: set {VARIABLE} where the copy is to run"
        )


def _checked(secret: str, source: str) -> str:
    if not secret or not all("!" <= each <= "~" for each in secret):
        raise ValueError(
            f"{source} is no access token: it must be one or more visible ASCII characters, "
            "without spaces or line breaks; see whether it was copied whole, and alone"
        )
    return secret


def _secret_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(MOST_OF_A_FILE).decode("latin-1")
    except OSError as error:
        raise ValueError(
            f"{FILE_VARIABLE}: {str(path)!r} cannot be read ({error.strerror}): name a file with "
            "the access token alone, that this process can read"
        ) from None
    return found.removesuffix("\n").removesuffix("\r")


def _source(path: Path) -> str:
    return f"what {FILE_VARIABLE} names, {str(path)!r},"
