"""Which group of a session drives which param group of an optimizer, and how it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from pacesetter._errors import GroupError

ParamGroup: TypeAlias = dict[str, Any]
Put: TypeAlias = Callable[[ParamGroup, float], None]
Columns: TypeAlias = Mapping[str, Sequence[float]]
Names: TypeAlias = tuple[str | None, ...]
"""The session group of each param group: "" without groups, None for one that is not driven."""

ALL = "lr"
"""What a session without groups calls its one rate."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_TENSOR_TOLERANCE = 1e-2  # bfloat16 has eight bits


def groups_of(optimizer: Any) -> dict[str, dict[str, float]]:  # noqa: ANN401 - torch's, not imported
    """Return an optimizer's param groups as the `groups` of a new session.

    Each is named by its `"name"`, where all have different ones, else `group0`, `group1`...;
    characters that a name cannot have become `_`. Its base is the learning rate that it started
    from. An optimizer that was loaded, or that a scheduler has driven, holds a decayed rate, and
    says in `"initial_lr"` what it was.
    """
    param_groups: list[ParamGroup] = optimizer.param_groups
    named = zip(group_names(param_groups), own_rates(param_groups), strict=True)
    return {name: {"base_lr": rate} for name, rate in named}


def group_names(param_groups: Sequence[ParamGroup]) -> list[str]:
    """Return a unique name that the server allows for each param group."""
    names = [_own_name(group) for group in param_groups]
    if all(names) and len(set(names)) == len(names):
        return names
    return [f"group{index}" for index in range(len(param_groups))]


def bases_of(optimizer: Any) -> dict[str, Any]:  # noqa: ANN401 - torch's, not imported
    """Return an optimizer's own rates as `base_lr`, or as `groups` where they differ."""
    rates = own_rates(optimizer.param_groups)
    return {"base_lr": rates[0]} if len(set(rates)) == 1 else {"groups": groups_of(optimizer)}


def described_bases(
    optimizer: Any,  # noqa: ANN401 - torch's, not imported
    groups: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Return the bases of a new session by an optimizer's own rates, within its groups.

    Raises:
        GroupError: A group has neither a base learning rate nor a param group of its name.
    """
    if groups is None:
        return bases_of(optimizer)
    if not isinstance(groups, Mapping):
        raise GroupError(
            f"groups={groups!r} chooses for param groups, and here groups= describes those of the "
            'session, as {"head": {"base_lr": 0.1}}: leave it out to have one for each param group '
            "whose rate differs, or make the scheduler by RemoteLR(optimizer, client.session(...), "
            "groups=[...])"
        )
    own = groups_of(optimizer)
    unknown = [name for name in groups if "base_lr" not in groups[name] and name not in own]
    if unknown:
        raise GroupError(
            f"no param group is named {', '.join(map(repr, unknown))} (there are "
            f"{', '.join(own)}), so its base learning rate is unknown: give it a base_lr"
        )
    return {"groups": {name: {**own.get(name, {}), **groups[name]} for name in groups}}


def close(one: float, other: float) -> bool:
    """Return whether two learning rates are equal but for rounding, for instance to float32."""
    return math.isclose(one, other, rel_tol=1e-6)


def own_rates(param_groups: Sequence[ParamGroup]) -> list[float]:
    """Return the rate that each param group was made with, whatever a schedule made of it."""
    return [float(group["initial_lr" if "initial_lr" in group else "lr"]) for group in param_groups]


def match(
    param_groups: Sequence[ParamGroup], session: Sequence[str], wished: Sequence[str | None] | None
) -> Names:
    """Return the session group of each param group; empty names if the session has no groups.

    A session may have groups that the optimizer does not have yet: those are for param groups that
    join later, see `join`.

    Args:
        param_groups: The optimizer's param groups.
        session: The session's groups, in order.
        wished: The caller's own choice, a name for each param group, None for one that keeps its
            own rate; more names are for param groups that are added later.

    Raises:
        GroupError: They do not fit.
    """
    if wished is not None:
        return _chosen(param_groups, session, wished)
    if not session:
        _same_lr(param_groups)
        return ("",) * len(param_groups)
    names = [_own_name(group) for group in param_groups]
    if len(set(names)) == len(names) and set(names) <= set(session):
        return tuple(names)
    if set(numbered := group_names(param_groups)) == set(session):
        return tuple(numbered)
    known = ", ".join(session)
    if len(param_groups) != len(session):
        raise GroupError(
            f"the optimizer has {len(param_groups)} param groups and the session {len(session)} "
            f"({known}): pass groups=[...] with a session group for each param group, None for one "
            "that keeps its own rate, and at the end the names of those that are added later"
        )
    own = [group.get("name") for group in param_groups]
    if all(own):
        raise GroupError(
            f"the param groups are named {', '.join(map(str, own))}, the session's {known}: "
            "rename them, or pass groups=[...] with a session group for each param group"
        )
    return tuple(session)


def join(
    param_groups: Sequence[ParamGroup],
    names: Names,
    session: Sequence[str],
    wished: Sequence[str | None] | None,
) -> Names:
    """Return the names of all param groups, where some were added to named ones.

    An added param group follows the session group that `wished` has in its place, or the one of its
    own name; any other keeps its own rate.
    """
    for at in range(len(names), len(param_groups)):
        own = _own_name(param_groups[at])
        if wished is not None and at < len(wished):
            name = _known(wished[at])
        else:
            name = own if own in session and own not in names else None
        names = (*names, name)
    return names


def _own_name(group: ParamGroup) -> str:
    return _UNFIT.sub("_", str(group.get("name", ""))).lstrip("_-")[:64]


def _known(wish: str | None) -> str | None:
    """Return a checked wish as a name: a session without groups calls its one rate `lr`."""
    return "" if wish == ALL else wish


def _chosen(
    param_groups: Sequence[ParamGroup], session: Sequence[str], wished: Sequence[str | None]
) -> Names:
    if isinstance(wished, str) or len(wished) < len(param_groups):
        raise GroupError(
            f"groups={wished!r} does not name a session group for each of the "
            f"{len(param_groups)} param groups: give a list of that many names"
        )
    unknown = [name for name in wished if name is not None and name not in (session or (ALL,))]
    if unknown and not session:
        raise GroupError(
            f"the session has no groups, and groups={list(wished)!r} names some: leave out groups=,"
            f" or name its one rate {ALL!r}, and None for param groups that keep their own"
        )
    if unknown:
        raise GroupError(
            f"the session has no group {', '.join(map(repr, unknown))}: choose from "
            f"{', '.join(session)}"
        )
    names = tuple(name if session else _known(name) for name in wished[: len(param_groups)])
    if all(name is None for name in names):
        raise GroupError(
            f"groups={list(wished)!r} has the session drive none of the optimizer's param groups: "
            f"choose from {', '.join(session) or ALL}"
        )
    return names


def _same_lr(param_groups: Sequence[ParamGroup]) -> None:
    rates = [float(group["lr"]) for group in param_groups]
    if len(set(rates)) > 1:
        raise GroupError(
            f"the param groups have the learning rates {', '.join(map(repr, rates))} and the "
            "session has one for all: create it with groups=groups_of(optimizer), or pass "
            f"groups=[{ALL!r}, None, ...], where None is for those that keep their own"
        )


def writers(
    group: ParamGroup, name: str, columns: Columns, left: Collection[str] = ()
) -> list[tuple[Put, Sequence[float]]]:
    """Return how to write one param group: functions, each with the column that feeds it.

    Args:
        group: The optimizer's param group.
        name: Its session group.
        columns: The columns of the session's window, by series.
        left: Channels that are not written, see `pacesetter._channels`.

    Raises:
        GroupError: The session drives something that the optimizer does not have.
    """
    prefix = f"{name}." if name else ""
    puts: list[tuple[Put, Sequence[float]]] = [
        (_fill_lr if is_tensor(group["lr"]) else _put_lr, columns[prefix + "lr"])
    ]
    momentum = columns.get(prefix + "momentum")
    if momentum is not None and "momentum" not in left:
        puts.append((_momentum(group), momentum))
    weight_decay = columns.get(prefix + "weight_decay")
    if weight_decay is not None and "weight_decay" not in left:
        if "weight_decay" not in group:
            raise GroupError(
                "the session drives weight_decay, which the optimizer lacks: take another "
                "optimizer, or a schedule without it"
            )
        puts.append((_put_weight_decay, weight_decay))
    return puts


def is_tensor(value: object) -> bool:
    """Return whether a hyperparameter is a tensor, which must be written in place."""
    return hasattr(value, "fill_")


def series_of(name: str) -> str:
    """Return the series of a session group's learning rate."""
    return f"{name}.lr" if name else "lr"


def read_back(
    param_groups: Sequence[ParamGroup], names: Names, written: Sequence[float]
) -> dict[str, Any]:
    """Return the learning rates that an optimizer holds, by series.

    Where param groups share a series, one that does not hold what was written speaks for it.

    Args:
        param_groups: The optimizer's param groups.
        names: The session group of each.
        written: The learning rate that was written to each; fewer than all, where some were added.
    """
    held: dict[str, Any] = {}
    for group, name, wanted in zip(param_groups, names, written, strict=False):
        if name is None:
            continue
        series = series_of(name)
        if series not in held or not holds(group, wanted):
            held[series] = group["lr"]
    return held


def holds(group: ParamGroup, lr: float) -> bool:
    """Return whether a param group has the rate that was written, as far as is cheap to tell.

    A tensor has rounded it to its own type, and reading one on an accelerator would make the
    training wait.
    """
    held = group["lr"]
    if not is_tensor(held):
        return bool(held == lr)
    return held.device.type != "cpu" or math.isclose(
        float(held), lr, rel_tol=_TENSOR_TOLERANCE, abs_tol=1e-30
    )


def _momentum(group: ParamGroup) -> Put:
    if "betas" in group:
        return _fill_beta1 if is_tensor(group["betas"][0]) else _put_beta1
    if "momentum" in group:
        return _put_momentum
    raise GroupError(
        "the session drives momentum, and the optimizer has neither momentum nor betas: take "
        "another optimizer, or a schedule with cycle_momentum false"
    )


def _put_lr(group: ParamGroup, value: float) -> None:
    group["lr"] = value


def _fill_lr(group: ParamGroup, value: float) -> None:
    group["lr"].fill_(value)


def _put_momentum(group: ParamGroup, value: float) -> None:
    group["momentum"] = value


def _put_beta1(group: ParamGroup, value: float) -> None:
    group["betas"] = (value, *group["betas"][1:])


def _fill_beta1(group: ParamGroup, value: float) -> None:
    group["betas"][0].fill_(value)


def _put_weight_decay(group: ParamGroup, value: float) -> None:
    group["weight_decay"] = value
