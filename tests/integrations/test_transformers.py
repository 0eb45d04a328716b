"""A real `transformers.Trainer` that follows a real service."""

import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer

from distributed.launch import on_ranks, values
from integrations import example
from integrations.hf_training import (
    PLATEAU,
    At,
    Losses,
    Net,
    Stream,
    arguments,
    examples,
    logged,
    sealed,
    train_on_a_rank,
    trainer_of,
    weights,
)
from pacesetter import (
    Client,
    ClosedError,
    ConflictError,
    PacesetterError,
    StateMismatchError,
)
from pacesetter.torch import groups_of
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer, description
from serving import PATIENCE, open_http


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    """Return a client of the real service; its sessions are closed with it."""
    with Client(server_url) as client:
        yield client


# -- the learning rates --


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("linear", {"warmup_steps": 3}),
        ("cosine", {"warmup_steps": 0.1}),
        ("polynomial", {"lr_scheduler_kwargs": {"power": 2.0, "lr_end": 1e-4}}),
        ("warmup_stable_decay", {"lr_scheduler_kwargs": {"num_decay_steps": 4}}),
    ],
)
def test_the_trainer_trains_as_before(
    kind: str, more: dict[str, Any], client: Client, unique_name: str, tmp_path: Path
):
    """A session made from the arguments has the Trainer's own rates, and gives the same weights."""
    args = arguments(tmp_path, lr_scheduler_type=kind, **more)
    plain = trainer_of(args, kind=Trainer)
    plain.train()
    paced = trainer_of(args, PacesetterCallback(unique_name, client=client))
    paced.train()
    assert logged(paced) == sealed(client, unique_name, 12)
    assert logged(paced) == pytest.approx(logged(plain), rel=1e-12, abs=1e-18)
    for ours, theirs in zip(paced.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_both_groups_of_a_trainer_are_driven(client: Client, unique_name: str, tmp_path: Path):
    """Parameters with weight decay and those without have the same rate, which is one series."""
    trainer = trainer_of(arguments(tmp_path), PacesetterCallback(unique_name, client=client))
    trainer.train()
    groups = trainer.optimizer.param_groups
    last = sealed(client, unique_name, 12)[-1]
    assert [group["lr"] for group in groups] == [last, last]
    assert client.session(unique_name).series == ("lr",)


def test_an_optimizer_of_ones_own_may_have_groups(client: Client, unique_name: str, tmp_path: Path):
    """Where rates differ, each param group has a group of the session with its own base."""
    net = Net()
    groups = [{"params": net.body.parameters()}, {"params": net.head.parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    trainer = PacesetterTrainer(
        net,
        arguments(tmp_path),
        train_dataset=examples(24),
        optimizers=(optimizer, None),
        callbacks=[PacesetterCallback(unique_name, client=client)],
    )
    trainer.train()
    curves = client.lr(unique_name, 0, count=12)["series"]
    assert {name: curve[0] for name, curve in curves.items()} == {
        "group0.lr": 0.1,
        "group1.lr": 0.5,
    }
    assert [group["lr"] for group in optimizer.param_groups] == [
        curve[-1] for curve in curves.values()
    ]


def test_biases_and_norms_stay_without_weight_decay(
    client: Client, unique_name: str, tmp_path: Path
):
    """The Trainer sets 0 there; a session that drives weight decay drives the others."""
    decay = {"kind": "ramp", "start": 0.01, "end": 0.1, "steps": 12}
    laws = {"lr": "constant", "weight_decay": decay}
    trainer = trainer_of(
        arguments(tmp_path, weight_decay=0.01),
        PacesetterCallback(unique_name, client=client, schedule={"kind": "channels", "laws": laws}),
    )
    trainer.train()
    driven = client.lr(unique_name, 0, count=12)["series"]["weight_decay"]
    held = [group["weight_decay"] for group in trainer.optimizer.param_groups]
    assert held == [driven[-1], 0.0]


@pytest.mark.parametrize("declared", [True, False])
def test_a_group_may_be_added(
    declared: bool,
    client: Client,
    unique_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """A callback unfreezes: the session's group is driven at once, any other keeps its rate."""
    net = Net()
    optimizer = torch.optim.SGD([{"params": net.head.parameters(), "name": "head"}], lr=0.1)
    name = "body" if declared else "tail"
    groups: dict[str, Any] = {"head": {}, "body": {"base_lr": 0.01}}
    rates: list[list[float]] = []

    def unfreeze() -> None:
        more = {"params": list(net.body.parameters()), "name": name, "lr": 7.0}
        optimizer.add_param_group(more)

    optimizer.register_step_post_hook(
        lambda inner, *_: rates.append([group["lr"] for group in inner.param_groups])
    )
    trainer = PacesetterTrainer(
        net,
        arguments(tmp_path),
        train_dataset=examples(24),
        optimizers=(optimizer, None),
        callbacks=[
            PacesetterCallback(unique_name, client=client, groups=groups),
            At(5, unfreeze),
        ],
    )
    trainer.train()
    series = client.lr(unique_name, 0, count=12)["series"]
    head, body = series["head.lr"], series["body.lr"] if declared else [7.0] * 12
    added = [list(pair) for pair in zip(head, body, strict=True)]
    assert rates == [*([rate] for rate in head[:5]), *added[5:]]
    assert ("keeps its own learning rate" in caplog.text) is not declared


def test_a_transformer_follows_an_open_session(client: Client, unique_name: str, tmp_path: Path):
    """A model of the library trains by a session that was opened before, which stays open."""
    config = BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    rows = [{"input_ids": torch.arange(8), "labels": torch.tensor(1)} for _ in range(24)]
    session = client.session(
        unique_name, base_lr=0.1, schedule={"kind": "cosine", "total_steps": 12}
    )
    trainer = PacesetterTrainer(
        BertForSequenceClassification(config),
        arguments(tmp_path),
        train_dataset=rows,
        callbacks=[PacesetterCallback(session)],
    )
    trainer.train()
    assert logged(trainer) == [session.lr(step) for step in range(12)]
    assert len(client.history(unique_name)["metrics"]["loss"]) >= 12


def test_gradient_accumulation_counts_updates(client: Client, unique_name: str, tmp_path: Path):
    """Accumulated batches make one step, also at the end of an epoch that lacks some."""
    args = arguments(tmp_path, gradient_accumulation_steps=4, max_steps=-1, num_train_epochs=3)
    trainer = trainer_of(args, PacesetterCallback(unique_name, client=client))
    trainer.train()
    assert trainer.state.global_step == 6  # 6 batches an epoch
    assert logged(trainer) == sealed(client, unique_name, 6)
    assert trainer.lr_scheduler.state_dict()["last_epoch"] == 6


def test_an_update_that_the_scaler_leaves_out_is_no_step(
    client: Client, unique_name: str, tmp_path: Path
):
    """Its rate is kept for the next update, and no value is skipped."""
    # The fused optimizer, the Trainer's default, skips updates without telling.
    args = arguments(tmp_path, optim="adamw_torch")
    trainer = trainer_of(args, PacesetterCallback(unique_name, client=client))
    # Too large for float32: the first gradients overflow.
    trainer.accelerator.scaler = torch.amp.GradScaler(
        "cpu", init_scale=2.0**126, backoff_factor=2.0**-40
    )
    trainer.args.max_grad_norm = 0.0
    trainer.train()
    rates = logged(trainer)
    skipped = rates.count(rates[0]) - 1
    assert 0 < skipped < 11
    assert rates[skipped:] == sealed(client, unique_name, 12 - skipped)
    assert trainer.lr_scheduler.state_dict()["last_epoch"] == 12 - skipped


# -- metrics --


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_evaluations_cut_when_the_trainers_own_plateau_does(
    strategy: str, client: Client, unique_name: str, tmp_path: Path
):
    """`reduce_lr_on_plateau` by the service has the same rate at each step as by torch."""
    args = arguments(
        tmp_path,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs=PLATEAU,
        eval_strategy=strategy,
        eval_steps=2,
        max_steps=-1,
        num_train_epochs=3 if strategy == "steps" else 6,
        per_device_train_batch_size=4 if strategy == "steps" else 12,
    )
    rates = []
    for kind, callbacks in (
        (Trainer, []),
        (PacesetterTrainer, [PacesetterCallback(unique_name, client=client)]),
    ):
        trainer = trainer_of(args, *callbacks, kind=kind)
        Losses(*[1.0, 0.5, 0.5, 0.49, 0.48, 0.2, 0.3, 0.3, 0.3, 0.3]).patch(trainer)
        trainer.train()
        rates.append(logged(trainer))
    assert rates[0] == rates[1]
    assert len(set(rates[1])) > 1


@pytest.mark.parametrize(("accumulated", "batches"), [(1, 3), (2, 4)])
def test_evaluations_of_a_stream_cut_when_the_trainers_own_plateau_does(
    accumulated: int, batches: int, client: Client, unique_name: str, tmp_path: Path
):
    """In an epoch of unknown length, the step after its evaluation has the new rate."""
    args = arguments(
        tmp_path,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs=PLATEAU,
        eval_strategy="epoch",
        gradient_accumulation_steps=accumulated,
        max_steps=18,
    )
    rates = []
    for kind, callbacks in (
        (Trainer, []),
        (PacesetterTrainer, [PacesetterCallback(unique_name, client=client)]),
    ):
        stream = Stream(4 * batches)
        trainer = trainer_of(args, *callbacks, kind=kind, train_dataset=stream)
        Losses(*[1.0, 0.5, 0.5, 0.49, 0.48, 0.2, 0.3, 0.3, 0.3]).patch(trainer)
        trainer.train()
        rates.append(logged(trainer))
    assert rates[0] == rates[1]
    assert len(set(rates[1])) > 1


def test_decisions_at_fixed_steps_wait_for_nobody(client: Client, unique_name: str, tmp_path: Path):
    """The evaluation before a boundary is reported before the Trainer asks for the boundary."""
    plateau = {"kind": "plateau", "metric": "eval_loss", **PLATEAU}
    callback = PacesetterCallback(
        unique_name,
        client=client,
        schedule={"kind": "constant"},
        controllers=[plateau],
        reaction={"decide_every": 3, "timeout": PATIENCE},
    )
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=3)
    trainer = trainer_of(args, callback)
    Losses(1.0, 1.0, 1.0, 1.0).patch(trainer)
    trainer.train()
    assert logged(trainer) == [0.01] * 9 + [0.005] * 3
    kinds = [event["kind"] for event in client.events(unique_name)]
    assert "boundary_passed" not in kinds


def test_what_was_measured_is_reported_at_its_step(
    client: Client, unique_name: str, tmp_path: Path
):
    """Losses and evaluations are recorded at the step whose rate they were measured with."""
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=4, eval_on_start=True)
    trainer = trainer_of(args, PacesetterCallback(unique_name, client=client))
    trainer.train()
    trainer.evaluate()  # after the training: of no step
    metrics = client.history(unique_name, end=12)["metrics"]
    assert sorted(metrics) == ["eval_loss", "grad_norm", "loss"]
    assert metrics["loss"] == logged(trainer, "loss")
    found = {step: loss for step, loss in enumerate(metrics["eval_loss"]) if loss is not None}
    assert found == dict(zip([3, 7, 11], logged(trainer, "eval_loss")[1:4], strict=True))


class Saying(PacesetterTrainer):
    """Logs other numbers beside the Trainer's."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Log them for every batch."""
        if self.model.training:
            own = {"train_acc": 0.5, "response_time": 3.0, "single": np.float32(0.25)}
            self.log({**own, "train_loss": 2.0, "scalar": torch.tensor(0.125), "text": "7"})
        return super().compute_loss(*args, **kwargs)


def test_all_numbers_but_the_trainers_own_times_are_reported(
    client: Client, unique_name: str, tmp_path: Path
):
    """Names that resemble its own are a user's, and so are numbers of numpy and torch."""
    args = arguments(
        tmp_path, eval_strategy="steps", eval_steps=4, include_num_input_tokens_seen="all"
    )
    sets = {"first": examples(4)}
    callback = PacesetterCallback(unique_name, client=client)
    trainer = trainer_of(args, callback, kind=Saying, eval_dataset=sets)
    trainer.train()
    metrics = client.history(unique_name, end=12)["metrics"]
    theirs = {"eval_first_loss", "grad_norm", "loss"}
    own = {
        "train_acc": 0.5,
        "response_time": 3.0,
        "single": 0.25,
        "train_loss": 2.0,
        "scalar": 0.125,
    }
    assert set(metrics) == theirs | set(own)
    assert {name: metrics[name][11] for name in own} == own


def test_an_evaluation_after_an_interrupt_is_of_no_step(
    client: Client, unique_name: str, tmp_path: Path
):
    """The step at which the training was interrupted was never finished, so nothing is reported."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    callback = PacesetterCallback(unique_name, client=client)
    trainer = trainer_of(arguments(tmp_path), callback, At(5, interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.evaluate()
    with contextlib.suppress(ClosedError):
        trainer.lr_scheduler.session.flush()
    assert "eval_loss" not in client.history(unique_name)["metrics"]
    assert f"pacesetter-{unique_name}" not in {each.name for each in threading.enumerate()}


def test_a_trainer_without_a_callback_evaluates(tmp_path: Path):
    """There is no session to follow, and nothing to report to."""
    assert "eval_loss" in trainer_of(arguments(tmp_path)).evaluate()


def test_all_data_sets_of_an_evaluation_are_seen_by_its_decision(
    client: Client, unique_name: str, tmp_path: Path
):
    """A plateau of the last data set cuts at the very next step, as one of the first does."""
    plateau = {"kind": "plateau", "metric": "eval_second_loss", **PLATEAU}
    plateau |= {"threshold": 100.0, "threshold_mode": "abs"}  # nothing is an improvement
    sets = {"first": examples(4), "second": examples(8)}
    trainer = trainer_of(
        arguments(tmp_path, eval_strategy="steps", eval_steps=2),
        PacesetterCallback(
            unique_name, client=client, schedule={"kind": "constant"}, controllers=[plateau]
        ),
        eval_dataset=sets,
    )
    trainer.train()
    assert logged(trainer) == [0.01] * 6 + [0.005] * 4 + [0.0025] * 2


# -- restarts --


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    client: Client, unique_name: str, tmp_path: Path
):
    """From a checkpoint the second attempt has the same rates, and the same weights to the bit."""
    args = arguments(tmp_path / "a", eval_strategy="steps", eval_steps=2)
    plateau = {"kind": "plateau", "metric": "eval_loss", **PLATEAU}
    whole = trainer_of(
        args, PacesetterCallback(f"{unique_name}-whole", client=client, controllers=[plateau])
    )
    whole.train()

    args = arguments(
        tmp_path / "b", eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=5
    )

    def crash() -> None:
        raise KeyboardInterrupt

    def callback() -> PacesetterCallback:
        return PacesetterCallback(unique_name, client=client, controllers=[plateau])

    with pytest.raises(KeyboardInterrupt):
        trainer_of(args, callback(), At(8, crash)).train()
    torch.manual_seed(99)
    resumed = trainer_of(args, callback())
    resumed.train(resume_from_checkpoint=True)
    assert client.session(unique_name).attempt == 2
    opened = [event for event in client.events(unique_name) if event["kind"] == "attempt_opened"]
    assert [event["at"] for event in opened] == [5]
    assert logged(resumed) == logged(whole)
    assert weights(resumed) == weights(whole)


def test_a_checkpoint_saved_between_update_and_evaluation_is_exact(
    client: Client, unique_name: str, tmp_path: Path
):
    """The next rate is not known yet when a step is evaluated; the checkpoint has its step."""
    args = arguments(
        tmp_path, eval_strategy="steps", eval_steps=4, save_strategy="steps", save_steps=4
    )
    trainer_of(args, PacesetterCallback(unique_name, client=client)).train()
    for step in (4, 8, 12):
        state = torch.load(tmp_path / f"checkpoint-{step}/scheduler.pt", weights_only=True)
        assert (state["last_epoch"], state["_step_count"]) == (step, step + 1)


def test_a_checkpoint_without_a_scheduler_is_enough(
    client: Client, unique_name: str, tmp_path: Path
):
    """The Trainer's step says where to go on, where its own schedulers would begin anew."""
    args = arguments(tmp_path, save_strategy="steps", save_steps=5, save_only_model=True)
    trainer_of(args, PacesetterCallback(unique_name, client=client)).train()
    resumed = trainer_of(args, PacesetterCallback(unique_name, client=client))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert logged(resumed) == sealed(client, unique_name, 12)
    assert client.session(unique_name).attempt == 2


def test_a_plateau_of_the_plain_trainer_is_taken_over_as_its_error_says(
    client: Client, unique_name: str, tmp_path: Path
):
    """What torch's plateau has seen is not dropped: the error has the keywords that keep it."""
    args = arguments(
        tmp_path,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs=PLATEAU,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=6,
    )
    losses = [1.0, 0.5, 0.5, 0.5, 0.49, 0.48, 0.47, 0.3, 0.3, 0.3, 0.3, 0.3]
    plain = trainer_of(args, kind=Trainer)
    Losses(*losses).patch(plain)
    plain.train()
    checkpoint = str(tmp_path / "checkpoint-6")
    refused = trainer_of(args, PacesetterCallback(unique_name, client=client))
    with pytest.raises(StateMismatchError, match="says more than a step") as error:
        refused.train(resume_from_checkpoint=checkpoint)
    advised = re.search(r"base_lr=(\S+) and controllers=(\[.*\]) \(keywords", str(error.value))
    assert advised is not None
    base, controllers = float(advised[1]), json.loads(advised[2])
    callback = PacesetterCallback(
        f"{unique_name}-b", client=client, base_lr=base, controllers=controllers
    )
    paced = trainer_of(args, callback)
    Losses(*losses[6:]).patch(paced)
    paced.train(resume_from_checkpoint=checkpoint)
    assert logged(paced) == logged(plain)
    assert len(set(logged(paced)[6:])) > 1


class Narrow(PacesetterTrainer):
    """Runs out of memory in its third update, unless the batches are small."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Fail as CUDA does."""
        used = self.__dict__.setdefault("used", [])
        if self.lr_scheduler.session not in used:
            for before in used:
                with pytest.raises(ClosedError):
                    before.flush()
            used.append(self.lr_scheduler.session)
        if len(inputs["labels"]) > 4 and self.state.global_step >= 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().training_step(model, inputs, *args, **kwargs)


@pytest.mark.parametrize(
    ("length", "total"),
    [({"max_steps": 12}, {}), ({"max_steps": -1, "num_train_epochs": 1}, {"total_steps": 8})],
)
def test_a_smaller_batch_size_that_is_found_opens_an_attempt(
    length: dict[str, Any],
    total: Any,
    client: Client,
    unique_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """Each try trains the steps anew, and closes the session of the try before."""
    args = arguments(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=8, **length)
    callback = PacesetterCallback(unique_name, client=client, **total)
    trainer = trainer_of(args, callback, kind=Narrow, train_dataset=examples(32))
    trainer.train()
    assert trainer.lr_scheduler.session.attempt == 5  # with batches of 8, 7, 6, 5, and 4
    rates = logged(trainer)[-trainer.state.global_step :]
    assert rates == sealed(client, unique_name, trainer.state.global_step)
    assert len(trainer.used) == 5
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_batch_size_that_changes_the_length_is_refused(
    client: Client, unique_name: str, tmp_path: Path
):
    """The message says what differs, and what to pass."""
    args = arguments(
        tmp_path,
        auto_find_batch_size=True,
        per_device_train_batch_size=8,
        max_steps=-1,
        num_train_epochs=1,
    )
    callback = PacesetterCallback(unique_name, client=client)
    trainer = trainer_of(args, callback, kind=Narrow, train_dataset=examples(32))
    with pytest.raises(ConflictError, match=r"pass total_steps=") as refused:
        trainer.train()
    found = str(refused.value)
    assert "total_steps (5 here, 4 there)" in found
    assert "schedule.num_training_steps (5 here, 4 there)" in found
    assert "base_lr" not in found


# -- notices --


@pytest.fixture(name="order")
def _order(server_url: str, unique_name: str) -> Iterator[Callable[[], object]]:
    """Return a function that orders a tenfold rate, from the next step on."""
    with open_http(server_url) as http:

        def scale() -> None:
            body = {"kind": "scale", "factor": 10.0}
            http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()

        yield scale


def test_a_checkpoint_is_saved_before_a_large_change(
    order: Callable[[], object], client: Client, unique_name: str, tmp_path: Path
):
    """An operator who multiplies the rate by ten can go back to the weights from before."""
    callback = PacesetterCallback(
        unique_name, client=client, schedule={"kind": "constant"}, max_lookahead=1
    )
    trainer = trainer_of(arguments(tmp_path), At(6, order), callback)
    trainer.train()
    assert logged(trainer) == [0.01] * 6 + [0.1] * 6
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]
    state = torch.load(tmp_path / "checkpoint-6/scheduler.pt", weights_only=True)
    assert state["last_epoch"] == 6


@pytest.mark.parametrize(("stop_on", "steps"), [((), 12), (("plateaued",), 3)])
def test_a_notice_may_end_the_training(
    stop_on: tuple[str, ...],
    steps: int,
    client: Client,
    unique_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """The Trainer stops at the chosen codes, and logs every notice."""
    plateau = {"kind": "plateau", "metric": "eval_loss", **PLATEAU, "notify": True}
    callback = PacesetterCallback(
        unique_name, client=client, controllers=[plateau], stop_on=stop_on
    )
    trainer = trainer_of(arguments(tmp_path, eval_strategy="steps", eval_steps=1), callback)
    Losses(*[1.0] * 12).patch(trainer)
    with caplog.at_level(logging.WARNING, "pacesetter"):
        trainer.train()
    assert trainer.state.global_step == steps


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_session_that_is_over_ends_the_training(
    strategy: str,
    client: Client,
    unique_name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """The Trainer ends as after its last step, and makes no update without a sealed rate."""
    plateau = {"kind": "plateau", "metric": "eval_loss", **PLATEAU}
    ending = {**plateau, "min_lr": 0.01, "at_floor": "stop"}
    args = arguments(tmp_path, eval_strategy=strategy, eval_steps=2, per_device_train_batch_size=12)
    callback = PacesetterCallback(
        unique_name, client=client, schedule={"kind": "constant"}, controllers=[ending]
    )
    trainer = trainer_of(args, callback)
    Losses(*[1.0] * 6).patch(trainer)
    with caplog.at_level(logging.WARNING, "pacesetter"):
        trainer.train()
    assert trainer.state.global_step == 6  # the third evaluation is the second without progress
    assert client.session(unique_name).horizon == 6
    assert "train_loss" in trainer.state.log_history[-1]
    assert "the training ends" in caplog.text


# -- several processes --


def test_two_processes_hold_the_same_rates(
    server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """Only the first calls the server; evaluations decide for both; a restart is one attempt."""
    given = (server_url, unique_name, str(tmp_path))
    first, second = values(on_ranks(2, train_on_a_rank, *given))
    assert first == second
    (rates, attempt), (again, next_attempt), refused = first
    assert (rates, attempt) == (sealed(client, unique_name, 12), 1)
    assert len(set(rates)) == 12  # linear, and cut on the way
    assert (again, next_attempt) == (rates[6:], 2)
    assert refused == "ResumeError"  # on both, and neither has trained


# -- misuse --


def test_misuse_is_told(client: Client, unique_name: str, tmp_path: Path):
    """Each wrong combination has an error that says what to do."""
    args = arguments(tmp_path)
    callback = PacesetterCallback(unique_name, client=client)
    with pytest.raises(TypeError, match="make it a PacesetterTrainer"):
        trainer_of(args, callback, kind=Trainer).train()
    with pytest.raises(TypeError, match="has 0 PacesetterCallbacks"):
        trainer_of(args).train()
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer)
    given = PacesetterTrainer(
        net,
        args,
        train_dataset=examples(8),
        optimizers=(optimizer, constant),
        callbacks=[callback],
    )
    with pytest.raises(TypeError, match=r"optimizers=\(optimizer, None\)"):
        given.train()
    session = client.session(f"{unique_name}-open", base_lr=0.1)
    with pytest.raises(TypeError, match="pass its name instead"):
        PacesetterCallback(session, base_lr=0.1)
    for option in ("save_on", "stop_on"):
        with pytest.raises(TypeError, match=rf'{option}=\["diverged"\]'):
            PacesetterCallback(session, **{option: "diverged"})


def test_a_trainer_that_loses_its_callback_stops(client: Client, unique_name: str, tmp_path: Path):
    """Without the callback the rate would stand still unnoticed."""
    callback = PacesetterCallback(unique_name, client=client)
    trainer = trainer_of(arguments(tmp_path), callback)
    trainer.add_callback(At(3, lambda: trainer.remove_callback(PacesetterCallback)))
    with pytest.raises(PacesetterError, match="keep the PacesetterCallback"):
        trainer.train()


def test_the_description_of_differing_rates_has_groups(tmp_path: Path):
    """Bases are those that the optimizer began with."""
    net = Net()
    optimizer = torch.optim.SGD(
        [{"params": net.body.parameters(), "lr": 0.1}, {"params": net.head.parameters(), "lr": 0.2}]
    )
    found = description(arguments(tmp_path), optimizer, 12)
    assert found["groups"] == groups_of(optimizer)
    assert found["schedule"] == {
        "kind": "hf.linear",
        "num_warmup_steps": 0,
        "num_training_steps": 12,
    }


def test_the_example_runs(
    server_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """It trains, is cut, comes back from a checkpoint, and says so."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    monkeypatch.chdir(tmp_path)
    example.run("huggingface_trainer")
    assert "attempt 2" in capsys.readouterr().out
