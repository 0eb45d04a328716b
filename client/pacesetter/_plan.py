"""A plan: the loss that the server predicts under other schedules for the rest of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pacesetter._errors import misfit
from pacesetter._notebook import shown as show_html
from pacesetter._plan_picture import shown


@dataclass(frozen=True)
class Candidate:
    """One way to go on.

    Attributes:
        label: What it is, in a few words.
        orders: `{"action", "at"}` of each order that carries it out; none for what happens without
            orders.
        total_steps: The first step that is no longer trained.
        loss: What is expected at the end; None if no loss is predicted.
        low: The lower end of the band that holds 9 of 10.
        high: The upper end of that band.
        gain: By how much the loss at the end is lower than as planned.
        blind: What a law without learning rates expects, for comparison.
        curve: `{"steps", "lr", "loss", "low", "high"}` up to the end; None if no loss is predicted.
        reasons: The reasons for and against it.
        refused: Why it cannot be ordered or predicted; None if it can.
    """

    label: str
    orders: tuple[Mapping[str, Any], ...]
    total_steps: int
    loss: float | None
    low: float | None
    high: float | None
    gain: float | None
    blind: float | None
    curve: Mapping[str, Any] | None = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    refused: str | None


@dataclass(frozen=True)
class Plan:
    """What the loss will be under several ways to go on, and how far to trust that.

    At the end of a notebook's cell it shows its curves, with their bands.

    Attributes:
        id: Identifies the plan when a candidate of it is applied.
        session: The session.
        metric: The only metric that is predicted.
        predicts: `loss`, `ranking` (only which candidate is better) or `nothing`.
        horizon: The first step that can still change.
        total_steps: The end that was planned for.
        findings: `{"code", "message", "effect"}` of each reason why less is said.
        candidates: The best first.
        probe: `{"step", "steps", "action", "advice"}` of a probe that would calibrate it; None if
            nothing is missing, or a probe would not help.
        unknown: What the prediction does not know.
        request: The request, as it was sent.
        answer: All of the server's answer, with the law and what it rests on.
    """

    id: str
    session: str
    metric: str
    predicts: str
    horizon: int
    total_steps: int
    findings: tuple[Mapping[str, str], ...]
    candidates: tuple[Candidate, ...]
    probe: Mapping[str, Any] | None
    unknown: tuple[str, ...]
    request: Mapping[str, Any] = field(repr=False)
    answer: Mapping[str, Any] = field(repr=False)

    def _repr_html_(self) -> str:
        return show_html(lambda: shown(self.answer), self)

    @property
    def best(self) -> Candidate | None:
        """The best candidate; None if there is none."""
        found = next(iter(self.candidates), None)
        return None if found is None or found.refused is not None else found

    @classmethod
    def parse(cls, answer: Mapping[str, Any], request: Mapping[str, Any]) -> Plan:
        """Read the server's JSON.

        Raises:
            InvalidAnswerError: A field is missing or of the wrong type.
        """
        try:
            return cls(
                id=str(answer["id"]),
                session=str(answer["session"]),
                metric=str(answer["metric"]),
                predicts=str(answer["predicts"]),
                horizon=int(answer["horizon"]),
                total_steps=int(answer["total_steps"]),
                findings=tuple(dict(each) for each in answer["findings"]),
                candidates=tuple(map(_candidate, answer["candidates"])),
                probe=answer["probe"],
                unknown=tuple(map(str, answer["unknown"])),
                request=request,
                answer=answer,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise misfit(
                f"the server described no plan ({type(error).__name__}: {error})"
            ) from error


def _candidate(answer: Mapping[str, Any]) -> Candidate:
    end = answer["end"] or {"loss": None, "low": None, "high": None}
    return Candidate(
        label=str(answer["label"]),
        orders=tuple(dict(each) for each in answer["orders"]),
        total_steps=int(answer["total_steps"]),
        loss=_number(end["loss"]),
        low=_number(end["low"]),
        high=_number(end["high"]),
        gain=_number(answer["gain"]),
        blind=_number(answer["blind"]),
        curve=answer["curve"],
        reasons=tuple(map(str, answer["reasons"])),
        refused=answer["refused"],
    )


def _number(value: Any) -> float | None:  # noqa: ANN401 - whatever stands in JSON
    return None if value is None else float(value)
