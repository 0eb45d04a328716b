"""A file to start a training from while the server is away: the session, and its forecast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacesetter._bounds import Bounds, bounds_of
from pacesetter._errors import InvalidAnswerError
from pacesetter._files import writing
from pacesetter._info import SessionInfo
from pacesetter._window import Expected, Window, checked, forecast

VERSION = 1


@dataclass(frozen=True)
class Bootstrap:
    """The content of a bootstrap file.

    Attributes:
        info: The session as it was described.
        forecast: Its values as they were forecast.
        sealed_until: The first step of the forecast that was not sealed.
    """

    info: SessionInfo
    forecast: Window
    sealed_until: int

    @classmethod
    def read(cls, path: str | Path, name: str, lr_bounds: Bounds | None) -> Bootstrap:
        """Read the file of a session.

        Raises:
            OSError: It cannot be read.
            InvalidAnswerError: It is not a bootstrap file, is of another session, or its values are
                unfit.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            if stored["bootstrap"] != VERSION:
                raise ValueError(f"version {stored['bootstrap']!r}")  # noqa: TRY301 - one message for all
            info = SessionInfo.parse(stored["session"], name)
            start, end = stored["values"]["start"], stored["values"]["sealed_until"]
            bounds = bounds_of(info, lr_bounds)
            expected = Expected(info.attempt, info.series, start, lr_bounds=bounds)
            columns = {
                each: checked(each, list(map(float, stored["values"]["series"][each])), expected)
                for each in info.series
            }
            return cls(info, forecast(int(start), columns), int(end))
        except (ValueError, KeyError, TypeError, RecursionError, InvalidAnswerError) as error:
            raise InvalidAnswerError(
                f"{path} is no bootstrap file of session {name} ({error}): write it with "
                "Client.export_bootstrap while the server is there"
            ) from error

    @staticmethod
    def write(path: str | Path, session: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Write the file, whole or not at all."""
        content = {"bootstrap": VERSION, "session": session, "values": values}
        with writing(path) as out:
            out.write(json.dumps(content, allow_nan=False).encode())
