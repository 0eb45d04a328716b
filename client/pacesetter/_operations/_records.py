"""Reading a session: its values, its record, and why they are what they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Any, SupportsIndex

from pacesetter._columns import Columns, joined
from pacesetter._errors import InvalidRequestError, misfit
from pacesetter._info import SessionInfo
from pacesetter._opening import path_of
from pacesetter._operation import (
    SVG,
    Call,
    Download,
    Several,
    Upload,
    an_object,
    asked,
    operation,
)
from pacesetter._plain import given

ROWS = 20_000
"""Steps of a record in one request; fewer where it has many columns."""

MOST_POINTS = 100_000
"""The most that a server shows of a record in one answer, over all its columns."""


class Records:
    """Values, measurements, events and whole records of sessions."""

    @operation
    def history(
        self,
        name: str,
        *,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        points: SupportsIndex | None = None,
        metrics: Sequence[str] | None = None,
        readings: bool = False,
        attempt: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return what was trained with, beside what was measured: values and metrics by step.

        Args:
            name: The session.
            start: The first step; by default the session's.
            end: The first step that is left out; by default the horizon.
            points: About how many steps of a long record are shown, extremes kept; 1000 by default.
            metrics: Names; all that were reported by default.
            readings: Each rank's own values too.
            attempt: An earlier attempt; by default the newest.

        Returns:
            `{"steps": [...], "series": {"lr": [...]}, "metrics": {"loss": [...]}, ...}`; in
            metrics, None stands where nothing was measured, and "nan", "inf" and "-inf" are
            strings.
        """
        return _history(name, start, end, points, metrics, attempt, readings=readings)

    @operation
    def compare(
        self,
        names: Sequence[str],
        *,
        by: str = "step",
        points: SupportsIndex | None = None,
        metrics: Sequence[str] | None = None,
    ) -> Call[dict[str, Any]]:
        """Return several trainings side by side: their curves, and how their descriptions differ.

        Args:
            names: The sessions, 2 to 10 of them.
            by: `"step"` overlays the curves by step, `"fraction"` by the fraction of each plan.
            points: About how many steps of each are shown, extremes kept; 10 to 10,000, by default
                500.
            metrics: Names; all that were reported by default.

        Returns:
            `{"by", "sessions", "differences"}`: for each session its `name`, `steps`, `places`,
            `series` and `metrics`, and for each difference its `pointer` and the `values` by
            session.

        Raises:
            NotFoundError: One of the names is not that of a session.
            InvalidRequestError: They are too few or too many.
        """
        return Call("GET", "/v1/compare", an_object, params=_compared(names, by, points, metrics))

    @operation
    def compare_picture(
        self,
        names: Sequence[str],
        *,
        by: str = "step",
        points: SupportsIndex | None = None,
        metrics: Sequence[str] | None = None,
    ) -> Call[str]:
        """Return what `compare` returns as a picture, in SVG; the arguments are the same."""
        params = _compared(names, by, points, metrics)
        return Call("GET", "/v1/compare", drawn, params=params, accept=SVG)

    @operation
    def columns(
        self,
        name: str,
        *,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        points: SupportsIndex | None = None,
        metrics: Sequence[str] | None = None,
        readings: bool = False,
        attempt: SupportsIndex | None = None,
    ) -> Several[Columns]:
        """Return the record as columns for NumPy, pandas or Arrow: every step, to the bit.

        Args:
            name: The session.
            start: The first step; by default the session's.
            end: The first step that is left out; by default the horizon.
            points: About how many steps are wanted, extremes kept, 10 to 100,000; by default all.
            metrics: Names; all that were reported by default.
            readings: A column for each rank too, such as `loss[3]`.
            attempt: An earlier attempt; by default the newest.
        """
        return _columns(name, start, end, points, metrics, attempt, readings=readings)

    @operation
    def export(self, name: str, file: str | os.PathLike[str] | IO[bytes]) -> Download:
        """Write the whole record of a session into a file, for `import_session`.

        Args:
            name: The session.
            file: Its path, where the file appears only once it is complete; or an open binary file,
                such as `sys.stdout.buffer`.
        """
        return Download(path_of(name) + "/export", file)

    @operation
    def import_session(
        self, file: str | os.PathLike[str] | IO[bytes], *, name: str | None = None
    ) -> Upload[SessionInfo]:
        """Restore a session from what `export` wrote: values, state and events to the bit.

        Args:
            file: What `export` wrote: a path, or an open binary file.
            name: The session's new name, if it is not to keep its own.

        Raises:
            ConflictError: The name is taken.
            InvalidRequestError: It is not a complete record; the message names the line.
        """

        def read(answer: Any) -> SessionInfo:  # noqa: ANN401 - the JSON of an answer
            return SessionInfo.parse(answer, name)

        return Upload(file, read, name)

    @operation
    def realised(
        self,
        name: str,
        *,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        attempt: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return the description of a session that replays another one's values to the bit.

        Its schedules are tables of the values from `start` to before `end`, at most 100,000 of
        them. Send it to `POST /v1/sessions`, or give its `schedule` or `groups` to `create`; it
        replays by itself; without a server, a list of values does so too.

        Args:
            name: The session.
            start: The first step; by default the session's.
            end: The first step that is left out; by default the horizon.
            attempt: An earlier attempt; by default the newest.
        """
        params = {"as": "table", **given(start=start, end=end, attempt=attempt)}
        return Call("GET", path_of(name) + "/export", an_object, params=params)


def _compared(
    names: Sequence[str],
    by: str,
    points: SupportsIndex | None,
    metrics: Sequence[str] | None,
) -> dict[str, Any]:
    named = None if metrics is None else ",".join(metrics)
    return given(session=list(names), by=by, points=points, metrics=named)


def record_query(
    start: SupportsIndex | None,
    end: SupportsIndex | None,
    points: SupportsIndex | None,
    metrics: Sequence[str] | None,
    attempt: SupportsIndex | None,
    *,
    readings: bool,
) -> dict[str, Any]:
    """Return the query for a part of a record."""
    named = None if metrics is None else ",".join(metrics)
    asked = given(start=start, end=end, points=points, metrics=named, attempt=attempt)
    return {**asked, "readings": "true"} if readings else asked


def _history(
    name: str,
    start: SupportsIndex | None,
    end: SupportsIndex | None,
    points: SupportsIndex | None,
    metrics: Sequence[str] | None,
    attempt: SupportsIndex | None,
    *,
    readings: bool,
) -> Call[dict[str, Any]]:
    params = record_query(start, end, points, metrics, attempt, readings=readings)
    return Call("GET", path_of(name) + "/history", an_object, params=params)


def drawn(answer: str) -> str:
    """Return an answer that is a picture.

    Raises:
        InvalidAnswerError: It is not a picture: the server is older than this client.
    """
    if "<svg" not in answer[:1_000]:
        raise misfit("the server answered no picture")
    return answer


def _columns(
    name: str,
    start: SupportsIndex | None,
    end: SupportsIndex | None,
    points: SupportsIndex | None,
    metrics: Sequence[str] | None,
    attempt: SupportsIndex | None,
    *,
    readings: bool,
) -> Several[Columns]:
    """Ask for the record piece by piece, none of them thinned, and join them."""
    if points is not None:
        whole = yield from asked(
            _history(name, start, end, points, metrics, attempt, readings=readings)
        )
        return joined(name, [whole])
    # First its extent, then some steps at a time, of that attempt even if another one begins.
    extent = yield from asked(_history(name, start, end, 10, (), attempt, readings=False))
    first, last, attempt = int(extent["start"]), int(extent["end"]), int(extent["attempt"])
    pieces: list[Mapping[str, Any]] = []
    rows = ROWS
    while first < last or not pieces:
        until = min(first + rows, last)
        call = _history(name, first, until, MOST_POINTS, metrics, attempt, readings=readings)
        try:
            piece = yield from asked(call)
        except InvalidRequestError as error:  # too much for one answer: many metrics, or ranks
            if error.code != "step_out_of_range" or until <= first + 1:
                raise
            rows = (until - first) // 2
        else:
            if len(piece["steps"]) == until - first:
                pieces.append(piece)
                first = until
            elif until <= first + 1:
                raise misfit(f"the server left step {first} of {name} out")
            else:  # some were left out, as there are too many columns
                rows = (until - first) // 2
    return joined(name, pieces)
