"""Values: at a step, ahead of it, drawn, and explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from pacesetter._info import SessionInfo
from pacesetter._merge import Merge
from pacesetter._opening import path_of
from pacesetter._operation import SVG, Call, Several, an_object, asked, operation
from pacesetter._operations._records import drawn, record_query
from pacesetter._plain import Number, given
from pacesetter._range_test import RangeTest


class Values:
    """What values sessions give for steps, and why."""

    @operation
    def lr(
        self,
        name: str,
        step: SupportsIndex,
        *,
        count: SupportsIndex | None = None,
        attempt: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return a session's values for a step, or for `count` steps, without sealing anything.

        Args:
            name: The session.
            step: The first step.
            count: How many steps, 1 or more.
            attempt: An earlier attempt, as far as it had sealed; by default the newest.

        Returns:
            `{"step", "lr", "sealed"}`, and with `count` `{"start", "series", "sealed_until"}`.
        """
        params = given(step=step, count=count, attempt=attempt)
        return Call("GET", path_of(name) + "/lr", an_object, params=params)

    @operation
    def forecast(
        self,
        name: str,
        *,
        start: SupportsIndex | None = 0,
        count: SupportsIndex | None = 1000,
        points: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return the curve as it will be if nothing more happens, thinned to `points`.

        Args:
            name: The session.
            start: The first step; None for the first that is not sealed.
            count: How many steps; None for all that are left of the session's `total_steps`.
            points: About how many of them are shown, extremes kept; 10 to 10,000, by default 1,000.

        Returns:
            `{"steps": [...], "series": {"lr": [...]}, "sealed_until": ...}`.
        """
        params = given(start=start, count=count, points=points)
        return Call("GET", path_of(name) + "/forecast", an_object, params=params)

    @operation
    def explain(self, name: str, step: SupportsIndex | None = None) -> Several[dict[str, Any]]:
        """Return why the values at a step are what they are: which law, since when, by whom.

        Args:
            name: The session.
            step: The step; by default the newest that was trained, or the first if none was.

        Returns:
            `{"step", "sealed", "attempt", "horizon", "series", "notes", "text"}`, where `text` says
            all of it. For a step that is not sealed, the forecast is explained.
        """
        return _explain(name, step)

    @operation
    def family(self, name: str) -> Call[dict[str, Any]]:
        """Return how a training's losses compare with the finished sessions of its template.

        Args:
            name: A session that was made from a template.

        Returns:
            `{"session", "template", "losses"}`, where each of the losses has its `curve` with the
            band of the family, and its `departures`, or its `reason` and `message` say why it is
            not judged.
        """
        return Call("GET", path_of(name) + "/family", an_object)

    @operation
    def range_test(
        self, name: str, *, metric: str | None = None, group: str | None = None
    ) -> Several[RangeTest]:
        """Return what a range test has shown so far, with the rates that rules suggest.

        Args:
            name: A session whose learning rate rises, as with the schedule `range_test`.
            metric: Its loss; by default what its controller `range_test` watches.
            group: The parameter group, where their rates differ.
        """
        return _range_test(name, given(metric=metric, group=group))

    @operation
    def merge(
        self,
        name: str,
        checkpoints: Sequence[SupportsIndex],
        *,
        shape: str | None = None,
        floor: Number | None = None,
        over: SupportsIndex | None = None,
    ) -> Call[Merge]:
        """Return which checkpoints to average, with which weights, in place of a decay.

        `pacesetter.torch.merge` averages them. Checkpoints from before the rate was constant are
        left out, and `left_out` says so.

        Args:
            name: A session with a constant phase.
            checkpoints: Their steps: each checkpoint has the weights before the update of its step.
            shape: `linear`, `cosine`, `1-sqrt` (the default), `square` or `exponential`.
            floor: What the decay ends at, as a fraction of the rate; by default 0.
            over: The number of steps before the last checkpoint that the decay spans; by default
                all over which the rate was constant.

        Raises:
            InvalidRequestError: Fewer than two of them were trained at one constant rate, or one of
                the checkpoints cannot exist yet.
        """
        params = given(checkpoint=list(checkpoints), shape=shape, floor=floor, over=over)
        return Call("GET", path_of(name) + "/merge", _merge, params=params)

    @operation
    def picture(
        self,
        name: str,
        what: str = "history",
        *,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        points: SupportsIndex | None = None,
        metrics: Sequence[str] | None = None,
        attempt: SupportsIndex | None = None,
    ) -> Call[str]:
        """Return a picture of a session's curves, as SVG.

        Args:
            name: The session.
            what: `"history"` is what was trained with and measured, `"forecast"` what will follow.
            start: The first step; by default that of the record, or of the forecast.
            end: The first step that is left out.
            points: About how many steps are drawn, extremes kept; 1,000 by default.
            metrics: The metrics of a history to draw beside the rate; all that were reported by
                default.
            attempt: For a history, an earlier attempt; by default the newest.

        Raises:
            ValueError: There is no such picture, or for a forecast `end` was given without
                `start`, or `metrics` or `attempt` was given.
        """
        if what == "history":
            params = record_query(start, end, points, metrics, attempt, readings=False)
        elif what == "forecast":
            if metrics is not None or attempt is not None:
                raise ValueError("a forecast has neither metrics nor attempts: leave them out")
            params = given(start=start, count=_count(start, end), points=points)
        else:
            raise ValueError(f"there is no picture {what!r}: ask for 'history' or 'forecast'")
        path = f"{path_of(name)}/{what}"
        return Call("GET", path, drawn, params=params, accept=SVG)


def _merge(answer: Any) -> Merge:  # noqa: ANN401 - the JSON of an answer
    return Merge.parse(an_object(answer))


def _explain(name: str, step: SupportsIndex | None) -> Several[dict[str, Any]]:
    if step is None:
        step = yield from newest_trained(name)
    params = given(step=step)
    call = Call("GET", path_of(name) + "/explain", an_object, params=params)
    return (yield from asked(call))


def newest_trained(name: str) -> Several[int]:
    """Ask for the newest step that was trained; it is the first if none was."""
    row = yield from asked(Call("GET", path_of(name) + "/status", an_object))
    if row["step"] is not None:
        return int(row["step"])
    info = yield from asked(Call("GET", path_of(name), SessionInfo.parse))
    return info.first_step


def _range_test(name: str, params: Mapping[str, Any]) -> Several[RangeTest]:
    path = path_of(name) + "/range-test"
    picture = yield from asked(Call("GET", path, drawn, params=params, accept=SVG))

    def read(answer: Any) -> RangeTest:  # noqa: ANN401 - the JSON of an answer
        return RangeTest.parse(an_object(answer), picture)

    return (yield from asked(Call("GET", path, read, params=params)))


def _count(start: SupportsIndex | None, end: SupportsIndex | None) -> int | None:
    if end is None:
        return None
    if start is None:
        raise ValueError("end= of a forecast needs start=: say where it begins")
    return max(1, end.__index__() - start.__index__())
