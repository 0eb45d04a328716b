"""SequentialLR and ChainedScheduler: several schedulers as one law."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._cycles import momentum_of
from pacesetter._from_torch._law import Law, agrees, carried
from pacesetter._from_torch._numbers import factor, whole
from pacesetter._from_torch._simple import cosine
from pacesetter._groups import ParamGroup

# ruff: noqa: ANN401, SLF001 - any scheduler of torch's, which has no public names for these

LawOf: TypeAlias = Callable[[Any, ParamGroup, int, int], Law]
"""The law of a scheduler for a param group, at a step of the scheduler's own."""

NOT_IN_SEQUENCE = {
    "SequentialLR": "make it one, flat",
    "SWALR": "it goes on from the rate before it; write a `sequence` with value `continue`",
}

ABSOLUTE = {"cyclic", "one_cycle"}
"""Kinds that state absolute learning rates."""


def members(scheduler: Any) -> list[Any]:
    """Return what is stepped with a scheduler: the parts of chains in turn, or the scheduler."""
    if type(scheduler).__name__ != "ChainedScheduler":
        return [scheduler]
    return [member for part in scheduler._schedulers for member in members(part)]


def position(scheduler: Any) -> int:
    """Return the step that a scheduler has reached; chains leave the counting to their parts.

    Raises:
        UnsupportedSchedulerError: Its parts have reached different steps, or it is at none.
    """
    positions = {whole(member.last_epoch, "last_epoch") for member in members(scheduler)}
    if len(positions) > 1:
        raise UnsupportedSchedulerError(
            f"the parts of ChainedScheduler have reached different steps ({sorted(positions)}): "
            "take it over before its first step"
        )
    return positions.pop()


def chained(law_of: LawOf, scheduler: Any, group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of ChainedScheduler: the product of its parts, where all of them multiply."""
    parts = members(scheduler)
    if len(parts) == 1:
        return law_of(parts[0], group, at, now)
    laws = [law_of(part, group, at, now) for part in parts]
    for part, law in zip(parts, laws, strict=True):
        name = type(part).__name__
        if name == "SequentialLR" or law.floor != 0.0:
            raise UnsupportedSchedulerError(
                f"{name} in ChainedScheduler does not only multiply what the others made of the "
                "learning rate, and may undo it: chain schedulers that multiply (an eta_min of 0, "
                "before T_max), or write a `product` of schedules"
            )
    value = laws[0].value
    for law in laws[1:]:
        value *= law.value / law.base if law.base else 0.0
    product = {
        "kind": "product",
        "schedule": laws[0].schedule,
        "factors": [law.schedule for law in laws[1:]],
    }
    return Law(laws[0].base, product, value, floor=0.0)


@dataclass(frozen=True)
class _Stage:
    """A scheduler and the steps that it is used for; the last one has no end."""

    scheduler: Any
    start: int
    end: int | None
    law: Law

    @property
    def swings(self) -> bool:
        """Whether it drives momentum."""
        return bool(self.law.schedule.get("cycle_momentum"))


def sequential(law_of: LawOf, scheduler: Any, group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of SequentialLR: each part from its own step 0, and from its own base."""
    stages = _stages(law_of, scheduler, group, at, now)
    if len(stages) == 1:
        return stages[0].law
    bases = [stage.law.base for stage in stages if stage.law.schedule["kind"] not in ABSOLUTE]
    base = next(filter(None, reversed(bases)), stages[-1].law.base)
    schedules = [_of_base(stage.law, base) for stage in stages]
    if any(stage.swings for stage in stages):
        schedules = _with_momentum(stages, schedules, group, at, now)
    parts: list[dict[str, Any]] = [{"schedule": schedule} for schedule in schedules]
    for part, stage in zip(parts, stages, strict=True):
        if stage.end is not None:
            part["steps"] = stage.end - stage.start
    said = tuple(each for stage in stages for each in stage.law.said)
    return Law(base, {"kind": "sequence", "parts": parts}, float(group["lr"]), said=said)


def _stages(law_of: LawOf, scheduler: Any, group: ParamGroup, at: int, now: int) -> list[_Stage]:
    """Return the parts that have steps; the one that is under way goes on from the held rate."""
    ends = [whole(end, "milestones", least=-(2**53)) for end in scheduler._milestones]
    if ends != sorted(ends):
        raise UnsupportedSchedulerError(f"milestones={ends}: give them rising")
    current, starts = bisect_right(ends, now), [0, *(max(end, 0) for end in ends)]
    stages = []
    for index, child in enumerate(scheduler._schedulers):
        if (name := type(child).__name__) in NOT_IN_SEQUENCE:
            raise UnsupportedSchedulerError(f"{name} in SequentialLR: {NOT_IN_SEQUENCE[name]}")
        start, end = starts[index], starts[index + 1] if index < len(ends) else None
        if end is not None and end <= start:
            continue
        reached = now - start if index == current else 0
        if name == "CosineAnnealingLR":
            law = cosine(child, group, at, reached, lasts=None if end is None else end - start)
        else:
            law = law_of(child, group, at, reached)
        if index == current:
            own = {member.last_epoch for member in members(child)}
            if own != {reached}:
                raise UnsupportedSchedulerError(
                    f"SequentialLR is at step {now}, of which {reached} are {name}'s, and that has "
                    f"made {sorted(own)}: build them together without a last_epoch, and load "
                    "SequentialLR's state or step it alone"
                )
            stages += _under_way(_Stage(child, start, end, law), group, at, reached)
        else:
            stages.append(_Stage(child, start, end, law))
    return stages


def _under_way(stage: _Stage, group: ParamGroup, at: int, reached: int) -> list[_Stage]:
    """Return a part from the held rate on, in two where a cosine turns from that to its own base.

    Down to its minimum, torch's cosine multiplies what the optimizer holds, which a cycle that was
    built later may have changed. From there it rises to the base that it was itself built with.
    """
    name, law = type(stage.scheduler).__name__, stage.law
    called, low = f"{name} in SequentialLR", law.schedule.get("T_max", -1)
    if name != "CosineAnnealingLR" or reached > low or agrees(law, group["lr"]):
        return [replace(stage, law=carried(law, group["lr"], called))]
    turn = stage.start + low
    falls = carried(cosine(stage.scheduler, group, at, reached), group["lr"], called)
    rises = replace(law, schedule={"kind": "shift", "by": low, "schedule": law.schedule})
    return [
        replace(stage, end=turn, law=falls),
        replace(stage, start=turn, law=rises),
    ]


def _of_base(law: Law, base: float) -> dict[str, Any]:
    """Return a schedule that equals the law, over another base."""
    if law.schedule["kind"] in ABSOLUTE or law.base == base:
        return law.schedule
    by = factor(law.base, base) if law.base else 0.0
    return {"kind": "rebase", "schedule": law.schedule, "by": by}


def _with_momentum(
    stages: list[_Stage], schedules: list[dict[str, Any]], group: ParamGroup, at: int, now: int
) -> list[dict[str, Any]]:
    """Add the momentum that torch leaves as it is while a part other than a cycle is under way."""
    held = float(group["betas"][0] if "betas" in group else group["momentum"])
    driven = []
    for stage, schedule in zip(stages, schedules, strict=True):
        ended = stage.end is not None and stage.end <= now
        if stage.swings:
            driven.append(schedule)
            if stage.end is not None and not ended:
                (member,) = members(stage.scheduler)
                held = momentum_of(member, group, at, stage.end - stage.start - 1)
            continue
        laws = {"lr": schedule, "momentum": {"kind": "hold", "value": held}}
        driven.append({"kind": "channels", "laws": laws})
    return driven
