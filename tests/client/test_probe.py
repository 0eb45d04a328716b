"""`probe` against the real service: it calibrates a plan, and leaves no trace in the model."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacesetter import Client, InvalidRequestError
from pacesetter.torch import RemoteLR, probe

TOTAL, SEEN, PROBE, EVERY, WIDTH = 1600, 800, 80, 4, 1000

SPEC: dict[str, Any] = {
    "base_lr": 0.06,
    "schedule": {"kind": "warmup", "steps": 10, "schedule": {"kind": "constant"}},
    "total_steps": TOTAL,
}


class Training:
    """Regression on noisy labels: the noise limits what a constant rate reaches.

    There are a thousand directions of falling curvature, so that the loss falls by a power law.
    """

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.scales = torch.arange(1, WIDTH + 1).float() ** -0.5
        self.model = nn.Linear(WIDTH, 1, bias=False)
        nn.init.constant_(self.model.weight, 0.7)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06, momentum=0.1)

    def update(self) -> None:
        """Make one update on sixteen examples."""
        inputs = torch.randn(16, WIDTH, generator=self.generator) * self.scales
        noise = torch.randn(16, 1, generator=self.generator) * 2
        self.optimizer.zero_grad()
        ((self.model(inputs) - noise) ** 2).mean().backward()
        self.optimizer.step()

    def loss(self) -> float:
        """Return 8 plus the loss on unseen data without noise."""
        with torch.no_grad():
            apart = (self.model.weight[0] * self.scales) ** 2
        return float(8 + apart.sum())

    def state(self) -> list[Tensor]:
        """Return copies of everything that training touches."""
        held = self.optimizer.state_dict()["state"]
        buffers = [each["momentum_buffer"] for each in held.values()]
        return copy.deepcopy([*self.model.parameters(), *buffers])


def trained(training: Training, scheduler: RemoteLR, until: int) -> None:
    """Train up to a step, and report the loss now and then."""
    for step in range(scheduler.last_epoch, until):
        training.update()
        if step % EVERY == 0:
            scheduler.report(step, loss=training.loss())
        scheduler.step()


def test_a_probe_calibrates_the_plan_and_is_undone(client: Client, unique_name: str) -> None:
    """The model is as before to the bit, the plan rests on the fork, and its best comes true."""
    training = Training()
    with client.session(unique_name, **SPEC) as session:
        scheduler = RemoteLR(training.optimizer, session)
        trained(training, scheduler, SEEN)
        session.flush()
        before, rates = training.state(), [each["lr"] for each in training.optimizer.param_groups]
        first = client.plan(unique_name, "loss")
        assert first.predicts == "ranking"
        assert first.probe is not None
        with probe(
            training.model,
            training.optimizer,
            unique_name,
            step=scheduler.last_epoch,
            steps=PROBE,
            client=client,
        ) as fork:
            for step in fork:
                training.update()
                if step % EVERY == 0:
                    fork.report(step, loss=training.loss())
            lowest = training.loss()
        assert all(map(torch.equal, training.state(), before))
        assert [each["lr"] for each in training.optimizer.param_groups] == rates
        assert lowest < training.loss()
        found = client.plan(unique_name, "loss")
        assert found.predicts == "loss", found.findings
        used = {each["session"]: each["decayed"] for each in found.answer["sources"]}
        assert used[f"{unique_name}-probe-{SEEN}"] >= 4
        assert client.get(f"{unique_name}-probe-{SEEN}").status == "finished"
        best = found.best
        assert best is not None
        assert best.gain is not None
        applied = client.apply_plan(unique_name, found, reason="the end is near")
        assert applied["reason"].startswith(f"the end is near (plan {found.id}: loss ")
        trained(training, scheduler, TOTAL)
        assert scheduler.get_last_lr()[0] < rates[0] / 2
        assert best.loss == pytest.approx(training.loss(), abs=0.1)


def test_a_fork_that_cools_down_already_is_trained(client: Client, unique_name: str) -> None:
    """A ready fork gets no further order; one that the probe makes stays within the limits."""
    training, limits = Training(), {"min_lr": 0.006}
    with client.session(unique_name, **SPEC, limits=limits) as session:
        trained(training, RemoteLR(training.optimizer, session), 40)
        session.flush()
    for made, floor in ((True, 0.03), (False, 0.006)):
        fork = f"{unique_name}-{made}"
        if made:
            client.fork(unique_name, fork, step=40)
            client.cooldown(fork, steps=10, at=40, ease="linear", to=0.03)
        with probe(
            training.model,
            training.optimizer,
            unique_name,
            step=40,
            steps=12,
            client=client,
            name=fork,
        ) as decay:
            rates = [training.optimizer.param_groups[0]["lr"] for _ in decay]
        assert rates[-1] == pytest.approx(floor, rel=0.8)
        assert min(rates) >= floor
        kinds = [each["kind"] for each in client.events(fork) if each["kind"] == "ordered"]
        assert len(kinds) == 1


def test_a_floor_that_an_order_has_raised_asks_for_a_fork_of_ones_own(
    client: Client, unique_name: str
) -> None:
    """The probe asks for less than the limits in force, and is refused; a cooled fork is not."""
    training = Training()
    with client.session(unique_name, **SPEC) as session:
        scheduler = RemoteLR(training.optimizer, session)
        trained(training, scheduler, 20)
        step = client.limit(unique_name, min_lr=0.02)["effective_step"] + 1
        trained(training, scheduler, step)
        session.flush()
    where: dict[str, Any] = {"step": step, "steps": 10, "client": client}
    with (
        pytest.raises(InvalidRequestError, match=r"outside the limits 0\.02"),
        probe(training.model, training.optimizer, unique_name, **where),
    ):
        pass
    own = f"{unique_name}-own"
    client.fork(unique_name, own, step=step)
    client.cooldown(own, steps=10, at=step, to=0.02, ease="linear")
    with probe(training.model, training.optimizer, unique_name, name=own, **where) as fork:
        rates = [training.optimizer.param_groups[0]["lr"] for _ in fork]
    assert min(rates) >= 0.02


def test_a_probe_that_fails_is_archived_and_undone(client: Client, unique_name: str) -> None:
    """The exception propagates; the weights are as before, and the fork is archived."""
    training = Training()
    with client.session(unique_name, **SPEC) as session:
        trained(training, RemoteLR(training.optimizer, session), 40)
        session.flush()
        before = training.state()
        with (  # noqa: PT012 - what raises stands within
            pytest.raises(ZeroDivisionError),
            probe(
                training.model,
                training.optimizer,
                unique_name,
                step=40,
                steps=10,
                client=client,
                name=f"{unique_name}-p",
            ) as fork,
        ):
            assert next(iter(fork)) == 40
            training.update()
            raise ZeroDivisionError
        assert all(map(torch.equal, training.state(), before))
        assert client.get(f"{unique_name}-p").status == "archived"
        with (
            pytest.raises(ValueError, match="steps=0"),
            probe(training.model, training.optimizer, unique_name, step=40, steps=0),
        ):
            pass
