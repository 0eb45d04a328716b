"""Schedules from point to point."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.eases import Cosine
from pacesetter_service.core.schedules.tables import MAX_PIECES, Knot, Knots

Points = Annotated[tuple[Knot, ...], Field(min_length=1, max_length=MAX_PIECES)]


class PiecewiseLinear(Named):
    """In straight lines from point to point; the first and the last level are held outside."""

    formula: ClassVar[str] = "a straight line between each two points"
    source: ClassVar[str] = "ignite PiecewiseLinear; optax.piecewise_interpolate_schedule"
    example: ClassVar[dict[str, Any]] = {
        "points": [{"at": 0, "level": 0.0}, {"at": 30, "level": "base"}, {"at": 90, "level": 0.0}]
    }

    kind: Literal["piecewise_linear"] = "piecewise_linear"
    points: Points

    def expand(self) -> Schedule:  # noqa: D102
        return Knots(points=self.points)


class PiecewiseCosine(Named):
    """In half cosine waves from point to point; the first and the last level are held outside."""

    formula: ClassVar[str] = "half a cosine wave between each two points"
    source: ClassVar[str] = "optax.piecewise_interpolate_schedule; fastai combined_cos"
    example: ClassVar[dict[str, Any]] = {
        "points": [{"at": 0, "level": 0.0}, {"at": 30, "level": "base"}, {"at": 90, "level": 0.0}]
    }

    kind: Literal["piecewise_cosine"] = "piecewise_cosine"
    points: Points

    def expand(self) -> Schedule:  # noqa: D102
        return Knots(points=self.points, ease=Cosine())
