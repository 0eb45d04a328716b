"""Hypergradient descent against the optimizer that it comes from, and its traps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.closed_loop import Loop, session
from pacesetter import Client
from pacesetter.torch import RemoteLR
from pacesetter_service.core.controllers import Sample
from pacesetter_service.core.controllers.hypergradient import Hypergradient
from strategies import metrics

STEPS = 60


def rule(**spec: Any) -> Hypergradient:
    """Make a controller of the product of two gradients."""
    return Hypergradient.model_validate({"metric": "product", **spec})


def moved(
    controller: Hypergradient, value: float, levels: Mapping[str, float] | None = None
) -> Mapping[str, float]:
    """Return the levels that a value changes, by default of two groups."""
    at = levels or {"body": 0.1, "head": 1.0}
    bases = {"body": 0.1, "head": 1.0, "": 0.1, "frozen": 0.0}
    seen = Sample("product", 3, value, at, {group: bases[group] for group in at})
    verdict = controller.observe(controller.init(), seen).verdict
    return verdict.levels if verdict else {}


# -- parity ----------------------------------------------------------------------------------------


class Task:
    """Regression on small batches, in float64; every copy takes the same course."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(STEPS, 16, 6, generator=generator, dtype=torch.float64)
        self.y = self.x.sin().sum(dim=2, keepdim=True)
        torch.manual_seed(4)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1)
        ).double()
        self.params = list(self.model.parameters())

    def backward(self, step: int) -> torch.Tensor:
        """Compute the gradient of a step; return it as one vector."""
        self.model.zero_grad()
        loss = torch.nn.functional.mse_loss(self.model(self.x[step]), self.y[step])
        loss.backward()
        return torch.cat([p.grad.flatten() for p in self.params if p.grad is not None])

    def flat(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """Return the concatenation of tensors that have the parameters' shapes."""
        return torch.cat([each.detach().flatten() for each in tensors])

    def move(self, vector: torch.Tensor, rate: float) -> None:
        """Make a step at a rate against a vector."""
        pieces = vector.split([p.numel() for p in self.params])
        with torch.no_grad():
            for p, piece in zip(self.params, pieces, strict=True):
                p.add_(piece.view_as(p), alpha=-rate)


def sgd_hd(
    beta: float, lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0
) -> list[float]:
    """Train by SGD-HD as SGDHD.step of hypergradient-descent does; return the rate of each step.

    The rate changes by the product of this gradient (weight decay in it) and the last direction
    (with momentum: the buffer), 0 at first; then the step is made with the changed rate.
    """
    task, rates = Task(), []
    direction = buffer = None
    for step in range(STEPS):
        gradient = task.backward(step)
        if weight_decay:
            gradient = gradient.add(task.flat(list(task.params)), alpha=weight_decay)
        if direction is not None:
            lr += beta * torch.dot(gradient, direction).item()
        if momentum:
            buffer = gradient.clone() if buffer is None else buffer * momentum + gradient
        direction = gradient if buffer is None else buffer
        task.move(direction, lr)
        rates.append(lr)
    return rates


def by_pacesetter(
    rate: Callable[[int, float | None], float], momentum: float = 0.0, weight_decay: float = 0.0
) -> list[float]:
    """Train by torch's SGD as the docstring says; give the rate of each step.

    Args:
        rate: Takes a step and the product that was measured for it, and gives its rate.
        momentum: SGD's.
        weight_decay: SGD's.
    """
    task, rates, last = Task(), [], None
    options = {"momentum": momentum, "weight_decay": weight_decay}
    optimizer = torch.optim.SGD(task.params, lr=0.0, foreach=False, **options)
    for step in range(STEPS):
        gradient = task.backward(step)
        if weight_decay:
            gradient = gradient.add(task.flat(list(task.params)), alpha=weight_decay)
        rates.append(rate(step, None if last is None else torch.dot(gradient, last).item()))
        optimizer.param_groups[0]["lr"] = rates[-1]
        optimizer.step()
        buffers = [optimizer.state[p].get("momentum_buffer") for p in task.params]
        last = task.flat(buffers) if momentum else gradient
    return rates


@pytest.mark.parametrize(
    ("beta", "options"),
    [
        (1e-3, {}),
        (1e-4, {"momentum": 0.9}),
        (1e-3, {"weight_decay": 0.01}),
        (1e-4, {"momentum": 0.9, "weight_decay": 0.01}),
    ],
)
def test_the_rates_are_those_of_sgd_hd(beta: float, options: dict[str, float]) -> None:
    """A real training has the bits of the reference optimizer, step by step."""
    loop = Loop(session(rule(beta=beta), base_lr=0.01))

    def rate(step: int, product: float | None) -> float:
        if product is not None:
            loop.report(step - 1, {0: product}, "product")
        return loop.seal(step).sealed[step]

    rates = by_pacesetter(rate, **options)
    assert rates == sgd_hd(beta, **options)
    assert max(rates) > 1.2 * min(rates)


def test_the_snippet_is_sgd_hd(server_url: str, unique_name: str) -> None:
    """The loop of the docstring, with `RemoteLR` and a real service, has the reference's rates."""
    controller = {"kind": "hypergradient", "metric": "product", "beta": 1e-3}
    task, rates, last = Task(), [], None
    with Client(server_url) as client:
        remote = client.create_session(unique_name, base_lr=0.01, controllers=[controller])
        optimizer = torch.optim.SGD(task.params, lr=0.01)
        scheduler = RemoteLR(optimizer, remote)
        for step in range(12):
            gradient = task.backward(step)
            if last is not None:
                scheduler.step(torch.dot(gradient, last).item())
            last = gradient
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
    assert rates == sgd_hd(beta=1e-3)[:12]


def test_the_multiplicative_rule_finds_its_rate_from_far_away() -> None:
    """With the cosine as metric a rate a thousand times too small grows until the loss falls."""
    task, last = Task(), None
    loop = Loop(session(rule(rule="multiplicative", beta=0.3), base_lr=1e-4))
    for step in range(STEPS):
        gradient = task.backward(step)
        if last is not None:
            cosine = torch.cosine_similarity(gradient, last, dim=0).item()
            loop.report(step - 1, {0: cosine}, "product")
        last = gradient
        task.move(gradient, loop.seal(step).sealed[step])
    assert loop.sealed[STEPS - 1] > 100 * loop.sealed[0]
    levels = list(loop.sealed.values())
    assert all(0 < level < 10 for level in levels)


# -- what it does ----------------------------------------------------------------------------------


def test_all_groups_move_by_the_same_amount() -> None:
    """The additive rule is the derivative of a shift that groups share."""
    assert moved(rule(beta=0.5), 0.25) == {"body": 0.1 + 0.125, "head": 1.125}
    assert moved(rule(beta=0.5, rule="multiplicative"), 1.0) == {"body": 0.1 * 1.5, "head": 1.5}


def test_a_group_can_have_its_own_product() -> None:
    """With `group` no other group moves."""
    assert moved(rule(beta=0.5, group="head"), 0.25) == {"head": 1.125}


def test_the_reason_names_the_product_and_the_rule() -> None:
    """The log says which way the gradients pointed, and what the rule makes of it."""
    loop = Loop(session(rule(beta=0.5))).train([-0.5], "product")
    [decided] = loop.decided
    assert decided.reason == (
        "successive gradients oppose each other: product -0.5, additive with beta 0.5, to at least"
        " 0.0"
    )
    assert loop.sealed == {0: 1.0, 1: 0.75}


# -- traps -----------------------------------------------------------------------------------------


def test_the_rate_never_goes_below_zero() -> None:
    """Where the reference would climb the loss, the level stops at the floor."""
    assert moved(rule(beta=1.0), -5.0) == {"body": 0.0, "head": 0.0}
    assert moved(rule(beta=1.0, min_lr=0.01), -5.0) == {"body": 0.01, "head": 0.01}


def test_a_rate_of_zero_recovers() -> None:
    """Two gradients at one point agree, so the additive rule leaves 0 again."""
    loop = Loop(session(rule(beta=1.0))).train([-5.0, 0.25], "product")
    assert list(loop.sealed.values()) == [1.0, 0.0, 0.25]


def test_a_level_below_the_floor_is_only_raised() -> None:
    """Gradients that oppose each other do not lift a level to a floor above it."""
    assert moved(rule(beta=1.0, min_lr=0.5), -0.01, {"": 0.1}) == {}
    assert moved(rule(beta=1.0, min_lr=0.5), 0.1, {"": 0.1}) == {"": 0.2}


def test_a_base_of_zero_stays() -> None:
    """No level is a multiple of 0: the group stays at 0, and the session goes on."""
    assert moved(rule(beta=1.0), 0.25, {"frozen": 0.0}) == {}
    loop = Loop(session(rule(beta=1.0), base_lr=0.0)).train([0.25, 0.25], "product")
    assert list(loop.sealed.values()) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_changes_nothing(kind: str, value: float) -> None:
    """NaN and infinities neither move a level nor lead to a decision."""
    assert moved(rule(rule=kind, beta=0.5), value) == {}


def test_what_would_overflow_changes_nothing() -> None:
    """A product beyond the floats leaves the level as it is."""
    assert moved(rule(beta=10.0), 1e308) == {}
    assert moved(rule(beta=10.0), -1e308) == {}


def test_a_product_is_no_cosine() -> None:
    """Reported to the multiplicative rule it counts as 1 or -1, so no factor is negative."""
    assert moved(rule(rule="multiplicative", beta=0.5), -400.0) == {"body": 0.05, "head": 0.5}
    assert moved(rule(rule="multiplicative", beta=0.5), 1.0000001) == {
        "body": 0.1 * 1.5,
        "head": 1.5,
    }


def test_a_beta_of_one_is_refused_for_cosines() -> None:
    """It would take the level to 0 for good."""
    with pytest.raises(ValidationError, match="give one below 1"):
        rule(rule="multiplicative", beta=1.0)


@given(
    st.sampled_from(["additive", "multiplicative"]),
    st.sampled_from([1e-6, 0.02, 0.9]),
    st.sampled_from([0.0, 0.05]),
    st.lists(st.one_of(metrics, st.floats(-1e308, 1e308)), max_size=30),
)
def test_levels_stay_finite_and_not_below_the_floor(
    kind: str, beta: float, floor: float, values: list[float]
) -> None:
    """Whatever is measured, every level is a finite number from the floor on."""
    controller = rule(rule=kind, beta=beta, min_lr=floor)
    levels = {"body": 0.1, "head": 1.0}
    for value in values:
        levels |= moved(controller, value, levels)
        assert all(floor <= level < math.inf for level in levels.values())
