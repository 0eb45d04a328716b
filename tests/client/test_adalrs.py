"""`adalrs` end to end: a training that saves and reloads its weights as the notices say."""

import copy
from typing import Any

import torch
from torch import nn

from pacesetter import Client, Notice
from pacesetter.torch import RemoteLR

STEPS, WIDTH = 320, 50

SEARCH: dict[str, Any] = {"kind": "adalrs", "metric": "loss", "window": 20, "until_step": 280}


def ended(client: Client, name: str, base: float, **spec: Any) -> tuple[float, list[Notice]]:
    """Train a noiseless regression of falling curvatures; return its last loss and the notices.

    The trainer saves its weights and momenta at a `checkpoint`, and loads them at a `roll_back`.
    """
    schedule = {"kind": "constant"}
    client.create(name, base_lr=base, schedule=schedule, total_steps=STEPS, **spec)
    scales = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -0.65
    model = nn.Linear(WIDTH, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=base, momentum=0.5)
    session = client.session(name)
    told: list[Notice] = []
    kept: dict[int | None, tuple[Any, Any]] = {}

    @session.on_notice
    def obey(notice: Notice) -> None:
        told.append(notice)
        if notice.code == "checkpoint":
            kept[notice.step] = copy.deepcopy((model.state_dict(), dict(optimizer.state)))
        elif notice.code == "roll_back":
            weights, momenta = kept[notice.good_step]
            model.load_state_dict(weights)
            for parameter, state in zip(optimizer.state, momenta.values(), strict=True):
                optimizer.state[parameter] = copy.deepcopy(state)

    scheduler = RemoteLR(optimizer, session, metric="loss")
    loss = 0.0
    for _ in range(STEPS):
        measured = 0.5 * ((model.weight[0] * scales) ** 2).sum()
        optimizer.zero_grad()
        measured.backward()
        optimizer.step()
        loss = measured.item()
        scheduler.step(loss)
    return loss, told


def test_a_training_whose_rate_is_far_too_low_is_sped_up(client: Client, unique_name: str) -> None:
    """The rate rises a hundredfold, one trial too many is undone, and the final loss is lower."""
    plain, silence = ended(client, f"{unique_name}-plain", 0.01)
    found, told = ended(client, unique_name, 0.01, controllers=[SEARCH])
    assert silence == []
    assert found < plain / 100
    codes = [notice.code for notice in told]
    assert codes.count("checkpoint") >= 4
    assert "roll_back" in codes
    assert client.lr(unique_name, STEPS - 1)["lr"] > 0.5
    explained = client.explain(unique_name, told[0].step)["text"]
    assert "times the level is tried over 20 measurements" in explained


def test_a_trial_that_blows_up_is_taken_back_to_the_weights_before_it(
    client: Client, unique_name: str
) -> None:
    """At the edge of stability every trial diverges; with backtracking nothing is lost."""
    plain, _ = ended(client, f"{unique_name}-plain", 1.2)
    found, told = ended(client, unique_name, 1.2, controllers=[{**SEARCH, "alpha": 4.0}])
    assert "roll_back" in [notice.code for notice in told]
    assert found < 2 * plain
