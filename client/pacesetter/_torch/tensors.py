"""Learning rates that are tensors, which are written in place: each param group needs its own.

`SGD(groups, lr=torch.tensor(0.1))` gives all groups the same tensor. That is fine where one law
drives them all. Where they have different laws, or another optimizer holds the tensor too, what is
written to one is written to all.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from pacesetter._errors import GroupError
from pacesetter._groups import Names, ParamGroup

_Place: TypeAlias = tuple[Any, ...]
_REMEDY = (
    "give each its own, before anything is compiled or captured: "
    '`for group in optimizer.param_groups: group["lr"] = group["lr"].clone()`'
)

_driven: weakref.WeakSet[Optimizer] = weakref.WeakSet()
"""The optimizers of this process that were ever driven."""


def refuse_shared(groups: Sequence[ParamGroup], names: Names, slots: Sequence[str]) -> None:
    """Check that param groups of different laws do not share a tensor.

    A shared tensor is not replaced here: an optimizer that was captured in a CUDA graph would go on
    with the old one.

    Args:
        groups: The optimizer's param groups.
        names: The session group of each.
        slots: The keys of a param group that are written to: `lr`, and `betas`.

    Raises:
        GroupError: Some share one.
    """
    for first, second, slot in _shared(groups, names, slots):
        raise GroupError(
            f"param groups {first} and {second} share one tensor as {slot}, so what is written to "
            f"one is written to both: {_remedy(slot)}"
        )


def shared_with_others(optimizer: Optimizer) -> GroupError | None:
    """Return an error if another driven optimizer holds a rate's tensor; list this optimizer."""
    own = {place: at for at, place in _places(optimizer.param_groups, "lr")}
    for other in [each for each in _driven if each is not optimizer]:
        for _, place in _places(other.param_groups, "lr"):
            if place in own:
                return GroupError(
                    f"the learning rate of param group {own[place]} is a tensor that another "
                    f"optimizer ({type(other).__name__}) holds too, so what is written to one is "
                    f"written to both: {_remedy('lr')}"
                )
    _driven.add(optimizer)
    return None


def unshared(groups: Sequence[ParamGroup], names: Names, slots: Sequence[str]) -> list[str]:
    """Replace the tensors that param groups of different laws share; return messages about that.

    This is for groups that were just added or loaded, which nothing has captured yet.
    """
    said = []
    for first, second, slot in _shared(groups, names, slots):
        group = groups[second]
        held = group[slot]
        group[slot] = held.clone() if slot == "lr" else (held[0].clone(), *held[1:])
        said.append(
            f"param group {second} shared the tensor of its {slot} with param group {first}, and "
            "has one of its own now, so that each is written by itself"
        )
    return said


def _shared(
    groups: Sequence[ParamGroup], names: Names, slots: Sequence[str]
) -> Iterator[tuple[int, int, str]]:
    """Yield param groups with an earlier one whose tensor they share, but not its name."""
    for slot in slots:
        seen: dict[_Place, int] = {}
        for at, place in _places(groups, slot):
            first = seen.setdefault(place, at)
            if names[first] != names[at]:
                yield first, at, slot


def _places(groups: Sequence[ParamGroup], slot: str) -> Iterator[tuple[int, _Place]]:
    """Yield where each tensor is in memory; that is known without waiting for its device."""
    for at, group in enumerate(groups):
        held = group.get(slot)
        written = held[0] if isinstance(held, tuple | list) else held
        if isinstance(written, Tensor):
            yield at, _place(written)


def _place(tensor: Tensor) -> _Place:
    try:
        lies = tensor.data_ptr()
    except RuntimeError:  # a kind of tensor that has no storage of its own
        lies = 0
    return (tensor.device, lies) if lies else (id(tensor),)


def _remedy(slot: str) -> str:
    if slot == "lr":
        return _REMEDY
    return f"give each param group {slot} of its own tensors, before anything is captured"
