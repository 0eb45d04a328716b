"""Saving what a training touches, and restoring it to the bit."""

from __future__ import annotations

import copy
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer


@contextmanager
def untouched(model: nn.Module, loss_fn: object, optimizer: Optimizer) -> Iterator[None]:
    """Undo, on exit, what was done to a model and its optimizer.

    Args:
        model: The model, whose parameters, buffers, gradients and modes are restored.
        loss_fn: Restored likewise, if it is a module.
        optimizer: The optimizer, whose state, param groups and all other attributes are restored;
            inside the block, it works on copies.

    Raises:
        TypeError: The model has parameters without a shape yet.
    """
    modules = [each for each in (model, loss_fn) if isinstance(each, nn.Module)]
    if any(is_lazy(parameter) for module in modules for parameter in module.parameters()):
        raise TypeError("the model has lazy parameters without a shape: run one batch first")
    with ExitStack() as stack:
        for module in modules:
            _keep_tensors(module, stack)
            for each in module.modules():
                stack.callback(setattr, each, "training", each.training)
        _keep_values((each for group in optimizer.param_groups for each in group["params"]), stack)
        _keep_attributes(optimizer, stack)
        yield


@contextmanager
def same_randomness(loader: object) -> Iterator[None]:
    """Restore, on exit, the global random generators and those of a `DataLoader`."""
    with ExitStack() as stack:
        _keep_generators(stack)
        _keep_generators_of(loader, stack)
        yield


def _keep_tensors(module: nn.Module, stack: ExitStack) -> None:
    """Save every parameter and buffer, also those that no state dict has."""
    slots = [slot for each in module.modules() for slot in _slots(each)]
    _keep_values((each for slot in slots for each in slot.values() if each is not None), stack)
    for slot in slots:
        stack.callback(_refill, slot, dict(slot))


def _slots(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return where a module has its own tensors; a forward pass may replace them."""
    return module._parameters, module._buffers  # noqa: SLF001 - to put back the tensors themselves


def _keep_values(tensors: Iterator[Tensor], stack: ExitStack) -> None:
    """Save values and gradients; the gradients are detached, so that nothing is added to them."""
    for tensor in {id(each): each for each in tensors}.values():
        gradient = tensor.grad if tensor.is_leaf else None
        stack.callback(_put_back, tensor, tensor.detach().clone(), gradient)
        if gradient is not None:
            tensor.grad = None


def _put_back(tensor: Tensor, value: Tensor, gradient: Tensor | None) -> None:
    with torch.no_grad():
        tensor.detach().copy_(value)
        if tensor.is_leaf:
            tensor.grad = gradient


def _keep_attributes(optimizer: Optimizer, stack: ExitStack) -> None:
    """Make the optimizer work on copies of its state and param groups."""
    stack.callback(_refill, optimizer.__dict__, dict(optimizer.__dict__))
    optimizer.state = defaultdict(
        dict, {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
    )
    optimizer.param_groups = [
        {key: value if key == "params" else copy.deepcopy(value) for key, value in group.items()}
        for group in optimizer.param_groups
    ]


def _keep_generators(stack: ExitStack) -> None:
    """Save the random generators of Python, of NumPy if it is loaded, and of torch."""
    stack.callback(random.setstate, random.getstate())
    if (numpy := sys.modules.get("numpy")) is not None:
        stack.callback(numpy.random.set_state, numpy.random.get_state())
    stack.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    if torch.backends.mps.is_available():
        stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())


def _keep_generators_of(loader: object, stack: ExitStack) -> None:
    """Save the generators that a DataLoader and its samplers shuffle with."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    for holder in (loader, batch_sampler, *samplers):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            stack.callback(generator.set_state, generator.get_state())


def _refill(target: dict[str, Any], content: dict[str, Any]) -> None:
    target.clear()
    target.update(content)
