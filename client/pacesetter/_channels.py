"""Momentum and weight decay: which param groups a session may write them to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

from pacesetter._errors import GroupError
from pacesetter._groups import Names, ParamGroup

CHANNELS = ("momentum", "weight_decay")

Left: TypeAlias = tuple[frozenset[str], ...]
"""For each param group, the channels that are not written to it."""


def driven_channels(series: Sequence[str]) -> list[str]:
    """Return the channels that a session drives beside the learning rate."""
    found = {name.rpartition(".")[2] for name in series}
    return [channel for channel in CHANNELS if channel in found]


def left_alone(
    param_groups: Sequence[ParamGroup],
    names: Names,
    series: Sequence[str],
    own_laws: Collection[str],
    *,
    known: Left = (),
) -> Left:
    """Find where a channel stays as it is: at 0, where other param groups of the law have more.

    So biases and norms, which have no weight decay, stay without. Where all have 0, nothing was
    chosen, and the session drives all.

    Args:
        param_groups: The optimizer's param groups.
        names: The session group of each.
        series: The names of the session's series.
        own_laws: The session groups that have a schedule of their own; all others share one.
        known: What was found before param groups were added. In an added group, a channel also
            stays as it is where its value differs from the others': that must not end a running
            training.

    Raises:
        GroupError: Param groups have different values of a channel that one law would make equal.
    """
    left = [set(each) for each in known] + [set[str]() for _ in param_groups[len(known) :]]
    for channel in driven_channels(series):
        for members in _by_law(param_groups, names, own_laws):
            values = {at: own_value(param_groups[at], channel) for at in members}
            chosen = {values[at] for at in members if at < len(known) or not known} - {0, None}
            if len(chosen) > 1 and not known:
                raise _differ(channel, chosen)
            if chosen:
                odd = [at for at in members if at >= len(known) and values[at] not in chosen]
                for at in odd:
                    left[at].add(channel)
    return tuple(map(frozenset, left))


def own_value(group: ParamGroup, channel: str) -> float | None:
    """Return the value that a param group was made with, whatever a session wrote, or None."""
    if f"initial_{channel}" in group:
        return float(group[f"initial_{channel}"])
    if channel == "momentum" and "betas" in group:
        return float(group["betas"][0])
    return float(group[channel]) if channel in group else None


def remember(param_groups: Sequence[ParamGroup], series: Sequence[str]) -> None:
    """Keep the values that param groups were made with, as torch keeps `initial_lr`.

    They go into the optimizer's state, so a resumed training knows them too.
    """
    for channel in driven_channels(series):
        for group in param_groups:
            value = own_value(group, channel)
            if value is not None:
                group.setdefault(f"initial_{channel}", value)


def said_of(left: Left, since: int = 0) -> str:
    """Return which param groups keep which channels, in words; empty if none does."""
    kept = {
        channel: [str(at) for at in range(since, len(left)) if channel in left[at]]
        for channel in CHANNELS
    }
    return ", ".join(
        f"their {channel} (param group {', '.join(groups)})"
        for channel, groups in kept.items()
        if groups
    )


def _by_law(
    param_groups: Sequence[ParamGroup], names: Names, own_laws: Collection[str]
) -> Iterator[list[int]]:
    """Return the param groups that one law drives, for each law."""
    laws: dict[str, list[int]] = {}
    for at, name in zip(range(len(param_groups)), names, strict=True):
        if name is not None:
            laws.setdefault(name if name in own_laws else "", []).append(at)
    yield from laws.values()


def _differ(channel: str, chosen: Collection[float | None]) -> GroupError:
    values = ", ".join(map(repr, sorted(value for value in chosen if value is not None)))
    return GroupError(
        f"the param groups have the {channel} {values} and the session drives one for all: create "
        "it with groups=, as groups_of(optimizer) names them, each with a schedule of its own that "
        f"drives {channel}; or leave {channel} out of the schedule, or make it the same (0 stays)"
    )
