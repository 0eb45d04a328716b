"""`pacesetter.torch.merge`: state dicts averaged in float64, and a training against the service."""

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pacesetter import Client
from pacesetter.torch import RemoteLR, merge


def test_a_merged_training_is_the_decayed_one(client: Client, unique_name: str) -> None:
    """For a linear loss in float64, checkpoints of every step merge to a cooldown's result."""
    steps, start = 60, 20
    client.create(unique_name, base_lr=0.05, schedule={"kind": "constant"}, total_steps=1000)
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(steps, 4, 3, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 4, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = RemoteLR(optimizer, client.session(unique_name))
    saved: dict[int, dict[str, Tensor]] = {}
    for step in range(steps):
        saved[step] = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        (model.weight * slopes[step]).sum().backward()  # its gradient is the slope, wherever it is
        optimizer.step()
        scheduler.step()
    saved[steps] = copy.deepcopy(model.state_dict())
    found = client.merge(unique_name, list(range(start, steps + 1)), shape="cosine", floor=0.1)
    fork = f"{unique_name}-decayed"
    client.fork(unique_name, fork, step=start)
    client.order(fork, found.action, at=start)
    decayed = saved[start]["weight"].clone()
    for step, rate in enumerate(client.lr(fork, start, count=steps - start)["series"]["lr"], start):
        decayed -= rate * slopes[step]
    shared = client.merge(fork, [0, 10, start])  # steps that it has from what it was forked from
    assert shared.steps == (0, 10, start)
    merged = merge([saved[step] for step in found.steps], found.weights)
    assert (merged["weight"] - decayed).abs().max() < 1e-12
    assert (saved[steps]["weight"] - decayed).abs().max() > 1e-3
    model.load_state_dict(merged)


@given(
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    st.integers(1, 6),
    st.integers(0, 99),
)
def test_an_average_is_rounded_once(dtype: torch.dtype, count: int, seed: int) -> None:
    """It is the float64 average of the states, within half the spacing of their dtype."""
    generator = torch.Generator().manual_seed(seed)
    states = [{"w": torch.randn(5, generator=generator).to(dtype)} for _ in range(count)]
    weights = torch.rand(count, generator=generator, dtype=torch.float64)
    weights = (weights / weights.sum()).tolist()
    merged = merge(states, weights)["w"]
    exact = torch.zeros(5, dtype=torch.float64)
    for state, weight in zip(states, weights, strict=True):
        exact += weight * state["w"].double()
    assert merged.dtype == dtype
    spacing = torch.finfo(dtype)
    half = 0.5 * spacing.eps * (1 + 1e-6)
    least = max(spacing.smallest_normal * half, 1e-15)  # float64 adds up in another order, too
    assert torch.allclose(merged.double(), exact, rtol=half, atol=least)


def model_of(seed: int) -> nn.Module:
    """Return a model with counts, statistics and a complex parameter."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).half())
    model.register_buffer("phase", torch.randn(2, dtype=torch.complex64))
    model[:2](torch.randn(5, 3))
    return model


def test_a_model_loads_its_merge_and_states_stay() -> None:
    """Counts come from the last, dtypes stay, and the inputs are not changed."""
    models = [model_of(seed) for seed in (1, 2)]
    models[1][:2](torch.randn(5, 3))
    states = [each.state_dict() for each in models]
    before = copy.deepcopy(states)
    merged = merge(states, [0.25, 0.75])
    assert merged["1.num_batches_tracked"] == 2
    assert merged["1.num_batches_tracked"] is not states[1]["1.num_batches_tracked"]
    assert {key: value.dtype for key, value in merged.items()} == {
        key: value.dtype for key, value in states[0].items()
    }
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(state[key], old[key]) for key in old)
    model = model_of(3)
    model.load_state_dict(merged)
    expected = 0.25 * before[0]["0.weight"].double() + 0.75 * before[1]["0.weight"].double()
    assert torch.equal(model.state_dict()["0.weight"], expected.float())
    assert merged._metadata == states[1]._metadata  # type: ignore[attr-defined]


def test_one_state_is_itself() -> None:
    """A single checkpoint with the weight 1 comes back to the bit."""
    state = model_of(1).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in merge([state], [1.0]).items())


@pytest.mark.parametrize(
    ("states", "weights", "said"),
    [
        ([], [], "0 states and 0 weights"),
        ([{"w": torch.zeros(2)}], [0.5, 0.5], "1 states and 2 weights"),
        ([{"w": torch.zeros(2)}] * 2, [0.5, 0.6], "come to 1.1"),
        ([{"w": torch.zeros(2)}] * 2, [float("nan"), 1.0], "come to nan"),
        ([{"w": torch.zeros(2)}, {"v": torch.zeros(2)}], [0.5, 0.5], "not all have 'v'"),
        ([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}], [0.5, 0.5], "'w' is float32[2]"),
        ([{"w": torch.zeros(2)}, {"w": torch.zeros(2).half()}], [0.5, 0.5], "float16[2]"),
        ([{"w": torch.zeros(2)}, {"w": "x"}], [0.5, 0.5], "str in the last"),
    ],
)
def test_what_is_no_average_is_refused(
    states: list[dict[str, Any]], weights: list[float], said: str
) -> None:
    """Each refusal names what does not fit."""
    with pytest.raises(ValueError, match=re.escape(said)):
        merge(states, weights)
