"""Models of the answers that endpoints write as bytes; they serve only the description.

Every trainer asks for windows all the time, and a curve may be long. So these are encoded without
a model in between. `tests/api/test_openapi.py` compares the real answers with these models.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment in UTC, as in RFC 3339."""


class NoticeView(BaseModel):
    """Something that a trainer should know when it reaches a step."""

    step: int = Field(description="the first step that it is about")
    code: str = Field(description="what it is, for programs")
    message: str = Field(description="what it is, for people")
    good_step: int | None = Field(
        default=None,
        description="with `roll_back` the last step whose measurement was good; else it is missing",
    )


class SessionPosition(BaseModel):
    """Where a session is; the answer of `sync` if no values were asked for."""

    attempt: int = Field(description="the running attempt, to be named in the next call")
    horizon: int = Field(description="the first step that is not sealed")
    revision: int = Field(description="how often the session's future has been changed")
    notices: list[NoticeView] = Field(description="what the trainer should know of these steps")
    max_lookahead: int | None = Field(
        description="how many steps may be sealed from the one asked for on; null is no limit"
    )
    epoch: str = Field(description="the database's history, to be sent with the next call")


class SealedWindow(SessionPosition):
    """The final values of a window of steps; the answer of `sync` to `want`."""

    start: int = Field(description="the window's first step")
    series: dict[str, list[float]] = Field(
        description="for each series its values, one for each step from `start` on"
    )


class SealedStep(SessionPosition):
    """The final values of one step, each by its series' name; the answer of `sync` to `step`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    step: int = Field(description="the step; its values stand beside it, as in `lr`")


class StepValues(BaseModel):
    """The values of one step, each by its series' name, sealed or forecast."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    step: int = Field(description="the step; its values stand beside it, as in `lr`")
    sealed: bool = Field(description="whether they are final")


class RangeValues(BaseModel):
    """The values of several steps."""

    start: int = Field(description="the first step")
    series: dict[str, list[float]] = Field(
        description="for each series its values, one for each step from `start` on"
    )
    sealed_until: int = Field(description="the first step whose values are a forecast")


class SampledCurve(BaseModel):
    """A curve, thinned out if it is long."""

    steps: list[int] = Field(description="the steps that are shown")
    series: dict[str, list[float]] = Field(
        description="for each series its values, one for each step that is shown"
    )


class ForecastCurve(SampledCurve):
    """The curve of a session: its sealed values, then those that would be sealed."""

    sealed_until: int = Field(description="the first step whose values are a forecast")


class Mistake(BaseModel):
    """One thing that is wrong with a request, and where."""

    pointer: str | None = Field(
        default=None, description="a JSON pointer to the place in the body; empty is all of it"
    )
    parameter: str | None = Field(
        default=None, description="the query parameter, header or part of the path, in its place"
    )
    detail: str = Field(description="what is wrong and what to write instead, for people")
    about: Literal["name"] | None = Field(
        default=None,
        description="`name` if the last name in `pointer` is wrong, and not the value there",
    )


class Problem(BaseModel):
    """Why a call was refused, as in RFC 9457."""

    type: str = Field(description="a URN that ends in the code")
    title: str = Field(description="the code in words")
    status: int = Field(description="the HTTP status")
    code: str = Field(description="which problem it is, stable and for programs")
    detail: str = Field(description="what is wrong and what to do, for people")
    advice: str | None = Field(
        default=None,
        description="the part of `detail` that speaks of HTTP, its end, where there is one",
    )
    errors: list[Mistake] | None = Field(
        default=None,
        description="what is wrong, each with its place: the first mistakes of a request, or the"
        " one field that is refused; missing where it is none, or several together",
    )
    more_errors: int | None = Field(
        default=None, description="how many mistakes there are beyond those, if there are more"
    )
    request_id: str | None = Field(
        default=None, description="with 5xx the call's id, by which the service's log is searched"
    )


MODELS: tuple[type[BaseModel], ...] = (
    SessionPosition,
    SealedWindow,
    SealedStep,
    StepValues,
    RangeValues,
    SampledCurve,
    ForecastCurve,
    Problem,
)
"""The models that are no endpoint's response model."""
