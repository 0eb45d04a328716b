"""What the tools answer: numbers as they are, texts marked as data, and a few entries per list."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from pacesetter.mcp._texts import LONGEST_WORD, Untrusted, items, some, untrusted

Number = float | str | None
"""A value; NaN and infinities are spelt out, and None means that there is none."""


class Metric(BaseModel):
    """The newest value of a metric."""

    name: Untrusted
    value: Number
    step: int


class Label(BaseModel):
    """A label of a session."""

    name: str
    value: Untrusted


class Ranks(BaseModel):
    """How many processes a training has, and how they do."""

    expected: int
    seen: int
    stale: int
    deviating: int


class Row(BaseModel):
    """Where one training stands."""

    name: str
    state: str = Field(description="running, silent, finished, failed or archived")
    attempt: int
    revision: int = Field(description="how often its future was changed")
    step: int | None = Field(description="the newest step that was trained; null before any")
    total_steps: int | None
    horizon: int = Field(description="the first step that was not handed out: orders hold from it")
    lr: dict[str, float | None] = Field(description="by series, at `step`")
    metrics: list[Metric]
    labels: list[Label]
    more: int = Field(description="how many series, metrics and labels are left out")
    ranks: Ranks
    orders: int = Field(description="how many orders wait to be carried out")
    last_heard: str | None
    seconds_left: float | None


class StatusAnswer(BaseModel):
    """Where trainings stand."""

    sessions: list[Row]
    more: bool = Field(description="whether there are others: narrow `name` or `state`")


class Why(BaseModel):
    """Why one series has its value."""

    series: str
    value: Number
    since: int = Field(description="the step from which on its law holds")
    law: Untrusted
    text: Untrusted


class ExplainAnswer(BaseModel):
    """Why the values of a step are what they are."""

    name: str
    step: int
    sealed: bool = Field(description="whether it was handed out, so that it is final")
    attempt: int
    horizon: int
    series: list[Why]
    notes: list[Untrusted]
    more: int = Field(description="how many series and notes are left out")


class Column(BaseModel):
    """The values of one metric, one a step of `steps`."""

    name: Untrusted
    values: list[Number]


class CurveAnswer(BaseModel):
    """Values by step, of a long stretch some of them."""

    name: str
    steps: list[int]
    series: dict[str, list[Number]]
    metrics: list[Column] = Field(default_factory=list)
    more: int = Field(default=0, description="how many series and metrics are left out")


class Proposal(BaseModel):
    """What an order would do; nothing is changed until it is applied."""

    proposal: str = Field(description="give it to `apply`")
    name: str
    effective_step: int = Field(description="the first step that it holds for, as things stand")
    steps_away: int | None
    seconds_away: float | None
    revision: int = Field(description="it is refused if the session has come to another one")
    expires_at: str
    steps: list[int]
    before: dict[str, list[Number]] = Field(description="by series, at `steps`, without the order")
    after: dict[str, list[Number]] = Field(description="likewise, with it")
    warnings: list[Untrusted]
    more: int = Field(description="how many series and warnings are left out")


class Applied(BaseModel):
    """An order that was given."""

    name: str
    order: int
    effective_step: int
    steps_away: int | None
    seconds_away: float | None
    revision: int


def row(found: dict[str, Any]) -> Row:
    """Read a row of the status view."""
    rates, more_rates = some(items(found["lr"]))
    metrics, more_metrics = some(items(found["metrics"]))
    labels, more_labels = some(items(found["labels"]))
    told = {
        "lr": dict(rates),
        "metrics": [Metric(name=_word(name), **each) for name, each in metrics],
        "labels": [Label(name=name, value=_word(value)) for name, value in labels],
        "more": more_rates + more_metrics + more_labels,
    }
    return Row.model_validate({**found, **told})


def explained(name: str, found: dict[str, Any]) -> ExplainAnswer:
    """Read an explanation."""
    series, more = some(items(found["series"]))
    notes, more_notes = some(found["notes"])
    whys = [
        Why(
            series=each,
            value=why["value"],
            since=why["since"],
            law=untrusted(why["law"]),
            text=untrusted(why["text"]),
        )
        for each, why in series
    ]
    told = {"series": whys, "notes": [untrusted(each) for each in notes]}
    return ExplainAnswer.model_validate({**found, **told, "name": name, "more": more + more_notes})


def curve(name: str, found: dict[str, Any], points: int) -> CurveAnswer:
    """Read a history or a forecast, of which about `points` steps are shown."""
    kept = _thinned(len(found["steps"]), points)
    series, more = some(items(found["series"]))
    metrics, more_metrics = some(items(found.get("metrics")))
    return CurveAnswer(
        name=name,
        steps=_at(found["steps"], kept),
        series={each: _at(values, kept) for each, values in series},
        metrics=[Column(name=_word(each), values=_at(row, kept)) for each, row in metrics],
        more=more + more_metrics,
    )


def rehearsed(
    found: dict[str, Any], *, name: str, proposal: str, expires_at: str, points: int
) -> Proposal:
    """Read a dry run, under the number by which it can be applied."""
    before, after = found["before"], found["after"]
    # Either curve ends before the first step that cannot be trained.
    shared = min(len(before["steps"]), len(after["steps"]))
    kept = _thinned(shared, points)
    names, more = some(before["series"])
    warnings, more_warnings = some(found["warnings"])
    return Proposal(
        proposal=proposal,
        name=name,
        effective_step=found["effective_step"],
        steps_away=found["steps_away"],
        seconds_away=found["seconds_away"],
        revision=found["revision"],
        expires_at=expires_at,
        steps=_at(before["steps"], kept),
        before={each: _at(before["series"][each], kept) for each in names},
        after={each: _at(after["series"][each], kept) for each in names},
        warnings=[untrusted(each) for each in warnings],
        more=more + more_warnings,
    )


def applied(name: str, found: dict[str, Any]) -> Applied:
    """Read the answer to an order."""
    return Applied.model_validate({**found, "name": name, "order": found["id"]})


def _word(text: str) -> Untrusted:
    return untrusted(text, LONGEST_WORD)


def _thinned(count: int, points: int) -> list[int]:
    """Return which of `count` places are shown: all, or about `points` of them with both ends."""
    if count <= points:
        return list(range(count))
    return sorted({round(each * (count - 1) / (points - 1)) for each in range(points)})


def _at(values: list[Any], kept: list[int]) -> list[Any]:
    return [values[each] for each in kept]
