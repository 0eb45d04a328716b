"""`merge`: the average of checkpoints by given weights, in float64, key by key."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SUM = 1e-9
"""How far the sum of the weights may be from 1."""


def merge(states: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> OrderedDict[str, Any]:
    """Return the weighted average of the state dicts of a model, for `load_state_dict`.

    ```python
    found = client.merge("run", [8000, 8500, 9000])
    states = [torch.load(f"step-{step}.pt", mmap=True) for step in found.steps]
    model.load_state_dict(merge(states, found.weights))
    ```

    Sums are made in float64 (complex128) on the CPU, one tensor after the other, and are rounded
    once, to the dtype that the tensor had; the states themselves stay as they are. What is not a
    floating-point number, such as a count of batches, comes from the last state. After a merge, the
    running statistics of BatchNorm belong to no model: measure them anew
    (`torch.optim.swa_utils.update_bn`). The state dicts of optimizers have no meaningful average:
    do not merge them.

    Args:
        states: The model's state dict at each checkpoint. Files that are mapped (`mmap=True`) are
            read one tensor at a time.
        weights: The weight of each, in the same order; their sum is 1.

    Raises:
        ValueError: There are not as many weights as states, they do not sum to 1, or the states are
            not of one model.
    """
    _refuse_unlike(states, weights)
    last = states[-1]
    merged: OrderedDict[str, Any] = OrderedDict(
        (key, _averaged([state[key] for state in states], weights)) for key in last
    )
    vars(merged).update(vars(last) if isinstance(last, OrderedDict) else {})  # modules' versions
    return merged


def _refuse_unlike(states: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> None:
    if len(states) != len(weights) or not states:
        raise ValueError(
            f"there are {len(states)} states and {len(weights)} weights: give one for each"
        )
    total = math.fsum(weights)
    if not abs(total - 1.0) <= SUM:
        raise ValueError(f"the weights come to {total!r}: give weights that come to 1")
    last = states[-1]
    for state in states:
        if odd := state.keys() ^ last.keys():
            raise ValueError(f"the states are not of one model: not all have {sorted(odd)[0]!r}")
    for key, value in last.items():
        for state in states:
            if _kind(state[key]) != _kind(value):
                raise ValueError(
                    f"the states are not of one model: {key!r} is {_kind(state[key])} in one, and"
                    f" {_kind(value)} in the last"
                )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def _averaged(values: Sequence[Any], weights: Sequence[float]) -> Any:  # noqa: ANN401 - anything
    last = values[-1]
    if not isinstance(last, Tensor):
        return last
    if not (last.is_floating_point() or last.is_complex()):
        return last.detach().clone()
    wide = torch.complex128 if last.is_complex() else torch.float64
    total = torch.zeros(last.shape, dtype=wide)
    with torch.no_grad():
        for value, weight in zip(values, weights, strict=True):
            total.add_(value.detach().to("cpu", wide), alpha=weight)
    return total.to(last.device, last.dtype)
