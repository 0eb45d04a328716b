"""Which group of a session drives which param group of an optimizer, and how it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pacesetter._errors import GroupError

ParamGroup: TypeAlias = dict[str, Any]
Put: TypeAlias = Callable[[ParamGroup, float], None]
Columns: TypeAlias = Mapping[str, Sequence[float]]

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_TENSOR_TOLERANCE = 1e-2  # bfloat16 has eight bits


def groups_of(optimizer: Any) -> dict[str, dict[str, float]]:  # noqa: ANN401 - torch's, not imported
    """An optimizer's param groups as the `groups` of a new session.

    Each is named by its `"name"`, where all have one of their own, else `group0`, `group1`...; what
    a session cannot be named by becomes `_`. Its base is the learning rate that it holds.
    """
    param_groups: list[ParamGroup] = optimizer.param_groups
    return {
        name: {"base_lr": float(group["lr"])}
        for name, group in zip(group_names(param_groups), param_groups, strict=True)
    }


def group_names(param_groups: Sequence[ParamGroup]) -> list[str]:
    """A name of its own, such as the server allows, for each param group."""
    names = [
        _UNFIT.sub("_", str(group.get("name", ""))).lstrip("_-")[:64] for group in param_groups
    ]
    if all(names) and len(set(names)) == len(names):
        return names
    return [f"group{index}" for index in range(len(param_groups))]


def match(
    param_groups: Sequence[ParamGroup], session: Sequence[str], wished: Sequence[str] | None
) -> tuple[str, ...]:
    """The session group of each param group; empty names for a session without groups.

    Args:
        param_groups: of the optimizer.
        session: the session's groups, in order.
        wished: the caller's own choice, one name for each param group.

    Raises:
        GroupError: they do not fit.
    """
    if not session:
        if wished is not None:
            raise GroupError("the session has no groups to choose from: leave out groups=")
        _same_lr(param_groups)
        return ("",) * len(param_groups)
    known = ", ".join(session)
    if wished is not None:
        return _chosen(param_groups, session, wished)
    if len(param_groups) != len(session):
        raise GroupError(
            f"the optimizer has {len(param_groups)} param groups and the session {len(session)} "
            f"({known}): pass groups=[...] with a session group for each param group"
        )
    names = group_names(param_groups)
    if sorted(names) == sorted(session):
        return tuple(names)
    own = [group.get("name") for group in param_groups]
    if all(own):
        raise GroupError(
            f"the param groups are named {', '.join(map(str, own))}, the session's {known}: "
            "rename them, or pass groups=[...] with a session group for each param group"
        )
    return tuple(session)


def _chosen(
    param_groups: Sequence[ParamGroup], session: Sequence[str], wished: Sequence[str]
) -> tuple[str, ...]:
    if isinstance(wished, str) or len(wished) != len(param_groups):
        raise GroupError(
            f"groups={wished!r} does not name a session group for each of the "
            f"{len(param_groups)} param groups: give a list of that many names"
        )
    unknown = [name for name in wished if name not in session]
    if unknown:
        raise GroupError(
            f"the session has no group {', '.join(map(repr, unknown))}: choose from "
            f"{', '.join(session)}"
        )
    return tuple(wished)


def _same_lr(param_groups: Sequence[ParamGroup]) -> None:
    rates = [float(group["lr"]) for group in param_groups]
    if len(set(rates)) > 1:
        raise GroupError(
            f"the param groups have the learning rates {', '.join(map(repr, rates))} and the "
            "session has one for all: create it with groups=groups_of(optimizer)"
        )


def writers(group: ParamGroup, name: str, columns: Columns) -> list[tuple[Put, Sequence[float]]]:
    """How to write one param group: functions, each with the column that feeds it.

    Raises:
        GroupError: the session drives something that the optimizer does not have.
    """
    prefix = f"{name}." if name else ""
    puts: list[tuple[Put, Sequence[float]]] = [
        (_fill_lr if is_tensor(group["lr"]) else _put_lr, columns[prefix + "lr"])
    ]
    momentum = columns.get(prefix + "momentum")
    if momentum is not None:
        puts.append((_momentum(group), momentum))
    weight_decay = columns.get(prefix + "weight_decay")
    if weight_decay is not None:
        if "weight_decay" not in group:
            raise GroupError(
                "the session drives weight_decay, which the optimizer lacks: take another "
                "optimizer, or a schedule without it"
            )
        puts.append((_put_weight_decay, weight_decay))
    return puts


def is_tensor(value: object) -> bool:
    """Whether a hyperparameter is a tensor, which compiled optimizers need written in place."""
    return hasattr(value, "fill_")


def read_back(
    param_groups: Sequence[ParamGroup], names: Sequence[str], written: Sequence[float]
) -> dict[str, Any]:
    """The learning rates that an optimizer holds, by series.

    Where param groups share a series, one that does not hold what was written speaks for it.

    Args:
        param_groups: of the optimizer.
        names: the session group of each.
        written: the learning rate that was written to each.
    """
    held: dict[str, Any] = {}
    for group, name, wanted in zip(param_groups, names, written, strict=True):
        series = f"{name}.lr" if name else "lr"
        if series not in held or not holds(group, wanted):
            held[series] = group["lr"]
    return held


def refuse_unfit(
    param_groups: Sequence[ParamGroup], names: Sequence[str], series: Sequence[str]
) -> None:
    """See that param groups can still be written as they were before.

    Raises:
        GroupError: their number has changed, or one lacks what the session drives.
    """
    if len(param_groups) != len(names):
        raise GroupError(
            f"the optimizer has {len(param_groups)} param groups now, it had {len(names)}: "
            "build RemoteLR again after adding groups"
        )
    nothing: dict[str, list[float]] = {name: [] for name in series}
    for group, name in zip(param_groups, names, strict=True):
        writers(group, name, nothing)


def holds(group: ParamGroup, lr: float) -> bool:
    """Whether a param group has the learning rate that was written, as far as can be told cheaply.

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
