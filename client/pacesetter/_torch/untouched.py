"""Keeping aside what a training touches, and putting it back to the bit."""

from __future__ import annotations

import copy
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

Restore = Callable[[], None]


@contextmanager
def untouched(model: nn.Module, loss_fn: object, optimizer: Optimizer) -> Iterator[None]:
    """Undo, on the way out, what was done to a model and its optimizer.

    Args:
        model: its parameters, buffers, gradients and modes.
        loss_fn: the same, if it is a module.
        optimizer: its state, its param groups and all other attributes; within, it works on copies.

    Raises:
        TypeError: the model has parameters without a shape yet.
    """
    modules = [each for each in (model, loss_fn) if isinstance(each, nn.Module)]
    for parameter in chain.from_iterable(module.parameters() for module in modules):
        if is_lazy(parameter):
            raise TypeError("the model has lazy parameters without a shape: run one batch first")
    with ExitStack() as stack:
        for module in modules:
            stack.callback(_tensors(module))
            stack.callback(_modes(module))
        stack.callback(_parameters(optimizer))
        stack.callback(_attributes(optimizer))
        yield


@contextmanager
def same_randomness(loader: object) -> Iterator[None]:
    """Put back, on the way out, the global random generators and those of a `DataLoader`."""
    with ExitStack() as stack:
        stack.callback(_generators())
        stack.callback(_generators_of(loader))
        yield


def _tensors(module: nn.Module) -> Restore:
    """Keep every parameter and buffer, also those that no state dict has."""
    slots = [slot for each in module.modules() for slot in _slots(each)]
    kept = [(slot, dict(slot)) for slot in slots]
    restore_values = _values(
        tensor for slot in slots for tensor in slot.values() if tensor is not None
    )

    def restore() -> None:
        for slot, content in kept:
            _refill(slot, content)
        restore_values()

    return restore


def _slots(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a module has its own tensors; a forward pass may put others in their place."""
    return module._parameters, module._buffers  # noqa: SLF001 - to put back the tensors themselves


def _parameters(optimizer: Optimizer) -> Restore:
    """Keep what an optimizer trains, wherever it comes from."""
    return _values(tensor for group in optimizer.param_groups for tensor in group["params"])


def _values(tensors: Iterator[Tensor]) -> Restore:
    """Keep values and gradients; the gradients are taken off, so that nothing is added to them."""
    kept = []
    for tensor in {id(each): each for each in tensors}.values():
        gradient = tensor.grad if tensor.is_leaf else None
        kept.append((tensor, tensor.detach().clone(), gradient))
        if gradient is not None:
            tensor.grad = None

    def restore() -> None:
        with torch.no_grad():
            for tensor, value, gradient in kept:
                tensor.detach().copy_(value)
                if tensor.is_leaf:
                    tensor.grad = gradient

    return restore


def _modes(module: nn.Module) -> Restore:
    kept = [(each, each.training) for each in module.modules()]

    def restore() -> None:
        for each, training in kept:
            each.training = training

    return restore


def _attributes(optimizer: Optimizer) -> Restore:
    """Have the optimizer work on copies of its state and param groups."""
    kept = dict(optimizer.__dict__)
    optimizer.state = defaultdict(
        dict, {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
    )
    optimizer.param_groups = [
        {key: value if key == "params" else copy.deepcopy(value) for key, value in group.items()}
        for group in optimizer.param_groups
    ]

    def restore() -> None:
        _refill(optimizer.__dict__, kept)

    return restore


def _generators() -> Restore:
    """Keep the random generators of Python, of NumPy if it is there, and of torch."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore() -> None:
        random.setstate(python_state)
        if numpy is not None and numpy_state is not None:
            numpy.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)

    return restore


def _generators_of(loader: object) -> Restore:
    """Keep the generators that a DataLoader and its samplers shuffle with."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found = [getattr(holder, "generator", None) for holder in holders]
    kept = [(each, each.get_state()) for each in found if isinstance(each, torch.Generator)]

    def restore() -> None:
        for generator, state in kept:
            generator.set_state(state)

    return restore


def _refill(target: dict[str, Any], content: dict[str, Any]) -> None:
    target.clear()
    target.update(content)
