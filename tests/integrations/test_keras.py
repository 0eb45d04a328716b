"""Keras' own `fit`, on its torch backend, with the rates of sessions of the real service."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from little_servers import LittleServer, Proxy, answer
from pacesetter import (
    AuthenticationError,
    Client,
    ConflictError,
    GroupError,
    ResumeError,
    Session,
)
from serving import PATIENCE, RunningService, open_http

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

EXAMPLE = Path(__file__).parents[2] / "examples/integrations/keras_callback.py"
EPOCHS = 6
BATCHES = 4
PLATEAU = {"kind": "keras.ReduceLROnPlateau", "monitor": "val_loss", "factor": 0.5, "patience": 2}


@pytest.fixture(name="keras", scope="module")
def _keras() -> Any:
    """Return Keras on torch, imported on demand: a process chooses its backend once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        import keras
    assert keras.backend.backend() == "torch"
    return keras


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


Make = Callable[..., Any]


@pytest.fixture(name="make")
def _make(keras: Any) -> Make:
    """Return a function that makes the same small model each time."""

    def make(optimizer: Any = None, **options: Any) -> Any:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD(123.0) if optimizer is None else optimizer
        model.compile(optimizer, loss="mse", **options)
        return model

    return make


def data(rows: int = 32, noise: float = 0.5) -> tuple[Any, Any]:
    draw = np.random.default_rng(rows)
    inputs = draw.normal(size=(rows, 3)).astype("float32")
    wanted = inputs.sum(1, keepdims=True) + noise * draw.normal(size=(rows, 1))
    return inputs, wanted.astype("float32")


def fit(model: Any, *callbacks: Any, epochs: int = EPOCHS, **options: Any) -> dict[str, list[Any]]:
    """Train, and return what Keras' History has of each epoch."""
    training = {"batch_size": 8, "shuffle": False, "verbose": 0, "validation_data": data(8)}
    history = model.fit(
        *data(), epochs=epochs, callbacks=list(callbacks), **{**training, **options}
    )
    found: dict[str, list[Any]] = history.history
    return found


def callback(*args: Any, **options: Any) -> Any:
    from pacesetter.keras import PacesetterCallback

    return PacesetterCallback(*args, **options)


def note_batches(keras: Any, model: Any) -> tuple[Any, list[float]]:
    """Return a callback that records the rate of each batch, and its records."""
    held: list[float] = []

    class Notes(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            held.append(float(model.optimizer.learning_rate))

    return Notes(), held


def sealed(client: Client, name: str, count: int) -> list[float]:
    """Return the sealed rates, rounded as an optimizer of Keras holds them."""
    rates = client.lr(name, 0, count=count)["series"]["lr"]
    return [float(np.float32(rate)) for rate in rates]


def reported(client: Client, name: str, metric: str) -> dict[int, float]:
    history = client.history(name, points=10_000)
    found = zip(history["steps"], history["metrics"].get(metric, ()), strict=False)
    return {step: value for step, value in found if value is not None}


# -- epochs --


def step_lr(epoch: int, lr: float) -> float:
    """As printed in an article on schedulers for Keras."""
    return lr * 0.5 if epoch % 2 == 0 and epoch > 0 else lr


def exp_lr(epoch: int, lr: float) -> float:
    """As printed."""
    return lr * 0.5


def cosine_lr(epoch: int, lr: float) -> float:
    """As printed."""
    lr_min, lr_max, max_epochs = 0.001, 0.1, EPOCHS
    return float(lr_min + 0.5 * (lr_max - lr_min) * (1 + np.cos(epoch * np.pi / max_epochs)))


FUNCTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "step": (step_lr, {"schedule": {"kind": "step", "step_size": 2, "gamma": 0.5}}),
    "exponential": (
        exp_lr,
        {"base_lr": 0.05, "schedule": {"kind": "exponential", "gamma": 0.5}},
    ),
    "cosine": (
        cosine_lr,
        {"schedule": {"kind": "cosine", "total_steps": EPOCHS, "min_lr": 0.001}},
    ),
}


@pytest.mark.parametrize(("function", "spec"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_it_takes_the_place_of_a_learning_rate_scheduler(
    function: Any, spec: dict[str, Any], keras: Any, make: Make, client: Client, unique_name: str
):
    """Functions for `LearningRateScheduler` have kinds of schedules: same rates, same losses."""
    model = make(keras.optimizers.SGD(0.1))
    expected = fit(model, keras.callbacks.LearningRateScheduler(function))
    session = client.create_session(unique_name, **{"base_lr": 0.1, **spec})
    found = fit(make(), callback(session))
    assert found == expected
    assert found["learning_rate"] == sealed(client, unique_name, EPOCHS)


def test_it_takes_the_place_of_reduce_lr_on_plateau(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """The server's rule cuts after the same epochs, so that the run is the same to the bit."""
    model = make(keras.optimizers.SGD(0.1))
    rule = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=2)
    expected = fit(model, rule, epochs=30)
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    found = fit(make(), callback(session), epochs=30)
    assert found == expected
    assert len(set(found["learning_rate"])) > 4
    assert found["learning_rate"] == sealed(client, unique_name, 30)


def test_what_fit_logs_is_reported_for_its_epoch(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """All metrics are reported by default, or the named ones; learning rates are not."""
    session = client.create_session(unique_name, base_lr=0.1)
    # It puts a learning rate in the log before the metrics are reported.
    patient = keras.callbacks.ReduceLROnPlateau("loss", patience=100)
    found = fit(make(metrics=["mae"]), patient, callback(session))
    for metric in ("loss", "mae", "val_loss", "val_mae"):
        assert reported(client, unique_name, metric) == dict(enumerate(found[metric]))
    assert not reported(client, unique_name, "learning_rate")
    other = client.create_session(unique_name + "-2", base_lr=0.1)
    fit(make(metrics=["mae"]), callback(other, metrics=["val_mae"]))
    assert list(client.history(other.name)["metrics"]) == ["val_mae"]


def test_the_end_of_the_session_ends_fit(make: Make, client: Client, unique_name: str):
    """After a controller has stopped, no further epoch is trained, and none has a rate."""
    ending = {"metric": "val_loss", "mode": "max", "threshold": 1e9, "patience": 0}
    rule = {"kind": "plateau", **ending, "factor": 0.5, "min_lr": 0.05, "at_floor": "stop"}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[rule])
    found = fit(make(), callback(session), epochs=30)
    assert found["learning_rate"] == [float(np.float32(rate)) for rate in (0.1, 0.1, 0.05)]


def applied(url: str, name: str) -> dict[str, Any]:
    with open_http(url) as http:
        answer: dict[str, Any] = http.get(f"/v1/sessions/{name}/ranks").raise_for_status().json()
    return answer


def test_the_server_knows_float32_for_what_it_is(
    make: Make, client: Client, unique_name: str, server_url: str
):
    """The optimizer's value is reported as it is, and is no deviation."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    fit(make(), callback(session))
    session.flush()
    [rank] = applied(server_url, unique_name)["ranks"]
    assert rank["applied"]["precision"] == "float32"
    assert rank["applied"]["step"] == EPOCHS - 1


def test_another_writer_is_a_deviation(
    keras: Any, make: Make, client: Client, unique_name: str, server_url: str
):
    """The server detects a second callback that sets the rate, and sends a notice."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    notices: list[Any] = []
    session.on_notice(notices.append)
    other = keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    fit(make(), callback(session), other)
    assert {notice.code for notice in notices} == {"rate_deviated"}


def test_another_writer_is_found_at_the_first_step(
    keras: Any, make: Make, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """The end of a window may be the end of the training, so a warning comes at the first step."""
    session = client.create_session(unique_name, base_lr=0.1)
    other = keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    fit(make(keras.optimizers.SGD(0.1)), callback(session), other, epochs=2)
    said = [each for each in caplog.messages if "something else writes it" in each]
    assert len(said) == 1
    assert "learning rate 0.5, and 0.1 was written for step 0" in said[0]


@pytest.mark.parametrize("own", [0.1, 123.0])
def test_a_rate_that_is_overwritten_is_told(
    own: float,
    keras: Any,
    make: Make,
    client: Client,
    unique_name: str,
    caplog: pytest.LogCaptureFixture,
):
    """The line comes once, with both rates; float32 rounding and a later fit cause none."""
    session = client.create_session(unique_name, base_lr=0.1)
    model, following = make(keras.optimizers.SGD(own)), callback(session)
    for first in (0, 3):
        fit(model, following, initial_epoch=first, epochs=first + 3)
    said = [each for each in caplog.messages if "the optimizer was made with" in each]
    assert len(said) == (own == 123.0)
    assert all("123.0" in each and "0.1" in each for each in said)


# -- batches --


def test_each_batch_has_the_sealed_rate(keras: Any, make: Make, client: Client, unique_name: str):
    """With `interval="batch"` a step is an update, and goes on in the next `fit`."""
    cosine = {"kind": "cosine", "total_steps": 40}
    session = client.create_session(unique_name, base_lr=0.1, schedule=cosine)
    model = make()
    notes, held = note_batches(keras, model)
    ours = callback(session, interval="batch")
    fit(model, ours, notes, epochs=2)
    fit(model, ours, notes, epochs=1)
    assert held == sealed(client, unique_name, 3 * BATCHES)
    assert session.attempt == 1
    assert list(reported(client, unique_name, "loss")) == list(range(12))
    assert list(reported(client, unique_name, "val_loss")) == [3, 7, 11]


def test_a_validation_cuts_at_the_next_batch(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """What is measured after an epoch's last batch counts for the next epoch's first."""
    rule = {"kind": "plateau", "metric": "val_loss", "mode": "max", "threshold": 1e9, "patience": 0}
    session = client.create_session(unique_name, base_lr=0.5, controllers=[rule])
    model = make()
    notes, held = note_batches(keras, model)
    fit(model, callback(session, interval="batch"), notes, epochs=3)
    expected = [rate for rate in (0.5, 0.5, 0.5 * 0.1) for _ in range(BATCHES)]
    assert held == [float(np.float32(rate)) for rate in expected]


def test_accumulated_gradients_are_one_update(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """A step is as many batches as the optimizer accumulates."""
    cosine = {"kind": "cosine", "total_steps": 40}
    session = client.create_session(unique_name, base_lr=0.1, schedule=cosine)
    model = make(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2))
    notes, held = note_batches(keras, model)
    fit(model, callback(session, interval="batch"), notes, epochs=2)
    assert held == [rate for rate in sealed(client, unique_name, BATCHES) for _ in range(2)]
    assert list(reported(client, unique_name, "loss")) == list(range(BATCHES))


def test_an_update_may_be_accumulated_over_epochs_and_fits(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """Batches that are left over at an end belong to the update that the next batch makes."""
    cosine = {"kind": "cosine", "total_steps": 40}
    session = client.create_session(unique_name, base_lr=0.1, schedule=cosine)
    model = make(keras.optimizers.SGD(0.5, gradient_accumulation_steps=3))
    notes, held = note_batches(keras, model)
    ours = callback(session, interval="batch")
    fit(model, ours, notes, epochs=2)  # 8 batches, which are 2 updates and 2 batches
    fit(model, ours, notes, epochs=1)
    assert session.attempt == 1
    assert int(model.optimizer.iterations) == 4
    assert held == [rate for rate in sealed(client, unique_name, 4) for _ in range(3)]
    assert list(reported(client, unique_name, "loss")) == list(range(4))


def test_a_loss_scale_changes_nothing_about_steps(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """The optimizer inside accumulates and counts."""
    session = client.create_session(unique_name, base_lr=0.1)
    inner = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    model = make(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0))
    ours = callback(session, interval="batch")
    for _ in range(2):
        fit(model, ours, epochs=1)
    assert session.attempt == 1
    assert list(reported(client, unique_name, "loss")) == list(range(BATCHES))


# -- resuming --


class KilledError(RuntimeError):
    """Stands for the death of a job."""


@pytest.mark.parametrize("interval", ["epoch", "batch"])
def test_a_killed_fit_is_restored_to_the_bit(
    interval: str, keras: Any, make: Make, client: Client, unique_name: str, tmp_path: Path
):
    """With `BackupAndRestore` a new job goes on in an attempt, and ends with the same weights."""
    spec = {"schedule": {"kind": "cosine", "total_steps": 40}, "controllers": [PLATEAU]}
    whole = make()
    undisturbed = client.create_session(unique_name + "-whole", base_lr=0.1, **spec)
    expected = fit(whole, callback(undisturbed, interval=interval), epochs=8)
    client.create_session(unique_name, base_lr=0.1, **spec)

    def job(*more: Any) -> tuple[Any, Any, dict[str, list[Any]]]:
        model, session = make(), client.session(unique_name)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return (
            model,
            session,
            fit(model, callback(session, interval=interval), backup, *more, epochs=8),
        )

    class Killer(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) == 5 * BATCHES + 2:
                raise KilledError

    with pytest.raises(KilledError):
        job(Killer())
    model, session, found = job()
    assert session.attempt == 2
    assert found == {name: values[5:] for name, values in expected.items()}
    for weight, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert weight.tobytes() == other.tobytes()
    own, same = (client.lr(n, 0, count=8)["series"] for n in (unique_name, undisturbed.name))
    assert own == same


def test_fit_goes_on_or_goes_back(make: Make, client: Client, unique_name: str):
    """`initial_epoch` goes on in the attempt; without it `fit` begins again, in another."""
    cosine = {"kind": "cosine", "total_steps": 40}
    session = client.create_session(unique_name, base_lr=0.1, schedule=cosine)
    session.lr(0)
    model, ours = make(), callback(session)
    found = fit(model, ours, epochs=2)["learning_rate"]
    found += fit(model, ours, initial_epoch=2, epochs=4)["learning_rate"]
    assert session.attempt == 1
    assert found == sealed(client, unique_name, 4)
    assert fit(model, ours, epochs=2)["learning_rate"] == found[:2]
    assert session.attempt == 2


def test_a_fit_that_could_not_go_back_goes_on_nowhere_else(
    make: Make, server_url: str, unique_name: str
):
    """The attempt was opened, and its values did not come: no other step is trained then."""
    proxy = Proxy(server_url.removeprefix("http://"))
    with LittleServer(proxy) as between, Client(between.url) as client:
        session = client.session(unique_name, base_lr=0.1, schedule={"kind": "constant"})
        model, follows = make(), callback(session)
        fit(model, follows)
        proxy.fault = lambda asked: answer(401) if asked.target.endswith("/sync") else None
        with pytest.raises(AuthenticationError):
            fit(model, follows, initial_epoch=2)
        proxy.fault = lambda _: None
        assert session.attempt == 2
        with pytest.raises(ResumeError, match="goes on at step 2"):
            fit(model, follows, initial_epoch=EPOCHS, epochs=EPOCHS + 1)
        fit(model, follows, initial_epoch=2)
        assert session.attempt == 2


def test_a_fit_that_goes_back_within_a_window_asks_for_its_own(
    make: Make, client: Client, unique_name: str
):
    """It does not reuse the values that the first life was given."""
    session = client.create_session(unique_name, base_lr=0.1)
    model, ours = make(), callback(session)
    fit(model, ours, epochs=12)
    start = session._core.window(11).start
    fit(model, ours, initial_epoch=start, epochs=start + 1)
    assert session.attempt == 2
    assert client.session(unique_name).horizon > start
    assert start in reported(client, unique_name, "loss")


def test_a_fit_that_was_interrupted_goes_on(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """The next update is the optimizer's, whether or not its last batch was completed."""

    class Interrupt(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                raise KeyboardInterrupt

    session = client.create_session(unique_name, base_lr=0.1)
    model, ours = make(), callback(session, interval="batch")
    for callbacks in ([ours, Interrupt()], [Interrupt(), ours]):
        with pytest.raises(KeyboardInterrupt):
            fit(model, *callbacks)
    fit(model, ours, epochs=1)
    assert session.attempt == 1
    assert int(model.optimizer.iterations) == 3 + 3 + BATCHES


@pytest.mark.parametrize("interval", ["epoch", "batch"])
def test_a_rerun_is_refused_before_its_first_update(
    interval: str, make: Make, client: Client, unique_name: str
):
    """A fresh `fit` under a name that was trained needs `resume` to say what it is."""
    spec: Any = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 40}}
    first = fit(make(), callback(client.session(unique_name, **spec), interval=interval), epochs=2)
    model = make()
    before = [weight.tobytes() for weight in model.get_weights()]
    with pytest.raises(ResumeError, match="resume='restart'"):
        fit(model, callback(client.session(unique_name, **spec), interval=interval), epochs=2)
    assert [weight.tobytes() for weight in model.get_weights()] == before
    for resume, attempt in (("continue", 1), ("restart", 2)):
        session = client.session(unique_name, resume=resume, **spec)
        assert fit(make(), callback(session, interval=interval), epochs=2) == first
        assert session.attempt == attempt


def test_another_callback_of_the_session_goes_on_or_goes_back(
    make: Make, client: Client, unique_name: str
):
    """It goes on where the last one ended; a `fit` from the start is a new attempt."""
    session = client.create_session(unique_name, base_lr=0.1)
    model = make()
    fit(model, callback(session), epochs=2)
    fit(model, callback(session), initial_epoch=2, epochs=4)
    assert session.attempt == 1
    fit(make(), callback(session), epochs=2)
    assert session.attempt == 2


def test_a_job_that_its_launcher_starts_again_goes_on(
    make: Make, client: Client, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """If it died before its first backup, it trains its steps again, in a new attempt."""
    monkeypatch.setenv("PACESETTER_RUN", unique_name)
    for life in (0, 1):
        monkeypatch.setenv("PACESETTER_RESTART", str(life))
        session = client.session(unique_name, base_lr=0.1)
        fit(make(), callback(session), epochs=2)
        assert session.attempt == 1 + life


@pytest.mark.parametrize("way", ["BackupAndRestore", "load_model"])
@pytest.mark.parametrize("interval", ["epoch", "batch"])
def test_a_training_goes_on_for_longer_from_what_was_saved(
    interval: str,
    way: str,
    keras: Any,
    make: Make,
    client: Client,
    unique_name: str,
    tmp_path: Path,
):
    """With `continues`, rates are the new description's from the restored epoch on."""
    old, longer = ({"kind": "cosine", "total_steps": steps} for steps in (12, 40))
    session = client.session(unique_name, base_lr=0.1, schedule=old)
    backup = {"delete_checkpoint": False} if way == "BackupAndRestore" else {}

    def saver() -> Any:
        if backup:
            return keras.callbacks.BackupAndRestore(tmp_path / "backup", **backup)
        return keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")

    fit(make(), callback(session, interval=interval), saver(), epochs=3)
    with pytest.raises(ConflictError, match=f"continues='{unique_name}'"):
        client.session(unique_name, base_lr=0.1, schedule=longer)
    name = f"{unique_name}-longer"
    session = client.session(name, continues=unique_name, schedule=longer)
    with pytest.raises(ResumeError, match="not known yet from which step"):
        fit(make(), callback(session, interval=interval), epochs=6)
    model = make() if backup else keras.models.load_model(tmp_path / "model.keras")
    first = {} if backup else {"initial_epoch": 3}
    notes, held = note_batches(keras, model)
    fit(model, callback(session, interval=interval), saver(), notes, epochs=6, **first)
    assert session.name == name
    assert session.attempt == 1
    each = BATCHES if interval == "epoch" else 1
    new = client.preview(longer, base_lr=0.1, count=6 * BATCHES // each)["series"]["lr"]
    expected = [float(np.float32(rate)) for rate in new for _ in range(each)]
    assert held == expected[3 * BATCHES :]


@pytest.mark.parametrize("interval", ["epoch", "batch"])
def test_what_the_last_epoch_decides_is_saved_with_the_model(
    interval: str, keras: Any, make: Make, client: Client, unique_name: str, tmp_path: Path
):
    """As with Keras' `ReduceLROnPlateau`, a model saved after its last epoch holds the cut rate."""

    def train(optimizer: Any, cutting: Any, file: Path) -> list[float]:
        model, save = make(optimizer), keras.callbacks.ModelCheckpoint(file)
        fit(model, cutting, save, epochs=3)
        optimizers = model.optimizer, keras.models.load_model(file).optimizer
        return [float(each.learning_rate) for each in optimizers]

    never = {"mode": "max", "min_delta": 1e9, "factor": 0.5, "patience": 2}
    rule = keras.callbacks.ReduceLROnPlateau("val_loss", **never)
    expected = train(keras.optimizers.SGD(0.5), rule, tmp_path / "keras.keras")
    assert expected == [0.25, 0.25]
    controller = {"kind": "keras.ReduceLROnPlateau", "monitor": "val_loss", **never}
    session = client.create_session(unique_name, base_lr=0.5, controllers=[controller])
    ours = callback(session, interval=interval)
    assert train(None, ours, tmp_path / "ours.keras") == expected


def test_a_new_optimizer_contradicts_a_later_epoch(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """By batches `initial_epoch` with an optimizer that counted nothing needs the updates before.

    Given to the callback, they are the steps before the first one, in the next `fit` as well.
    """
    cosine = {"kind": "cosine", "total_steps": 40}
    session = client.create_session(unique_name, base_lr=0.1, schedule=cosine)
    fit(make(), callback(session, interval="batch"), epochs=2)
    with pytest.raises(ValueError, match="initial_epoch=2, but the optimizer is new"):
        fit(make(), callback(session, interval="batch"), initial_epoch=2, epochs=3)
    assert session.attempt == 1
    model = make()
    notes, held = note_batches(keras, model)
    ours = callback(session, interval="batch", updates_before=2 * BATCHES)
    fit(model, ours, notes, initial_epoch=2, epochs=3)
    fit(model, ours, notes, initial_epoch=3, epochs=4)
    assert held == sealed(client, unique_name, 4 * BATCHES)[2 * BATCHES :]
    for wrong in ({"updates_before": 4}, {"updates_before": -1, "interval": "batch"}):
        with pytest.raises(ValueError, match="give initial_epoch to fit"):
            callback(session, **wrong)


def test_counts_that_contradict_are_told(
    keras: Any, make: Make, client: Client, unique_name: str, caplog: pytest.LogCaptureFixture
):
    """Where epoch and optimizer disagree, the optimizer's step is used, and a warning says so."""
    session = client.create_session(unique_name, base_lr=0.1)
    model = make()
    fit(model, callback(session, interval="batch"), epochs=1)
    assert "the optimizer has seen" not in caplog.text
    fit(model, callback(session, interval="batch"), initial_epoch=5, epochs=6)
    assert "epoch 5 of 4 batches each, and the optimizer has seen 4" in caplog.text
    assert list(reported(client, unique_name, "loss")) == list(range(2 * BATCHES))


# -- what cannot be driven --


def test_a_schedule_in_the_optimizer_is_refused(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """It would conflict with the session's; the message says where it belongs."""
    ours = callback(client.create_session(unique_name, base_lr=0.1))
    for schedule in (keras.optimizers.schedules.CosineDecay(0.1, 10), lambda: 0.1):
        with pytest.raises(TypeError, match="the schedule to the session"):
            fit(make(keras.optimizers.SGD(schedule)), ours)


def test_what_has_no_single_rate_is_refused(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """Groups, momentum, several optimizers, several updates in one batch: each says what to do."""
    session = client.create_session(unique_name, base_lr=0.1)
    with pytest.raises(ValueError, match="interval='step': choose from epoch, batch"):
        callback(session, interval="step")
    with pytest.raises(TypeError, match=r'metrics=\["val_loss"\]'):
        callback(session, metrics="val_loss")
    groups = client.create_session(unique_name + "-2", groups={"body": {"base_lr": 0.1}})
    with pytest.raises(GroupError, match="one learning rate"):
        callback(groups)
    two = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="several learning rates"):
        fit(make(two), callback(session))


def test_a_server_that_is_gone_at_the_end_fails_nothing(
    make: Make,
    service: RunningService,
    unique_name: str,
    keras: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """The weights are trained; a log line says that reports wait, long before `max_wait`."""
    monkeypatch.setattr(Session, "deliver", partialmethod(Session.deliver, 0.1))

    class Unplug(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                service.kill()

    with Client(service.url, max_wait=10 * PATIENCE) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        fit(make(), callback(session), Unplug(), epochs=2)
        session._core.sync.reports.entries.clear()
    assert f"reports of session {unique_name} are not delivered" in caplog.text


JAX = """
import sys

import keras
import numpy as np

from pacesetter import Client
from pacesetter.keras import PacesetterCallback

inputs = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
cosine = {"kind": "cosine", "total_steps": 12}


def train(optimizer, *callbacks, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse", **options)
    model.fit(inputs, inputs.sum(1), batch_size=8, epochs=3, shuffle=False, verbose=0,
              callbacks=list(callbacks))
    return [weight.tobytes() for weight in model.get_weights()]


with Client() as client:
    for interval, steps in ("epoch", 3), ("batch", 12):
        name = f"{sys.argv[1]}-{interval}"
        session = client.create_session(name, base_lr=0.1, schedule=cosine)
        driven = train(keras.optimizers.SGD(123.0), PacesetterCallback(session, interval=interval))
        rates = client.lr(name, 0, count=steps)["series"]["lr"]
        values = [rate for rate in rates for _ in range(12 // steps)]
        steps = keras.optimizers.schedules.PiecewiseConstantDecay(range(11), values)
        assert driven == train(keras.optimizers.SGD(steps)), interval
    try:
        options = {"steps_per_execution": 2}
        train(keras.optimizers.SGD(0.1), PacesetterCallback(session, interval="batch"), **options)
    except ValueError as error:
        print(keras.backend.backend(), error)
"""


def test_it_drives_jax_as_well(server_url: str, unique_name: str):
    """On JAX, whose steps are compiled, the rates are those that the weights were trained with."""
    done = run([sys.executable, "-c", JAX, unique_name], server_url, KERAS_BACKEND="jax")
    assert done.startswith("jax steps_per_execution=2 updates with one rate")


# -- the example --


def run(command: list[str], url: str, **environment: str) -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(
        command,
        env={**os.environ, "PACESETTER_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_runs(
    keras: Any, server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It is interrupted in its seventh epoch, and goes on there in a new attempt."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    epochs = [int(line.split()[1]) for line in lines if line.startswith("epoch")]
    assert epochs == list(range(12))
    assert lines[-1] == "done, in attempt 2"


@pytest.mark.parametrize("kind", ["opened", "sent", "fork"])
def test_a_fit_begins_where_its_session_was_sent(
    kind: str, make: Make, client: Client, unique_name: str
):
    """An epoch is its number: a `fit` that names another one than the session is refused."""
    cosine = {"kind": "cosine", "total_steps": 40}
    client.session(unique_name, base_lr=0.1, schedule=cosine).lr(5)
    if kind == "fork":
        name = f"{unique_name}-fork"
        client.session(name, continues=unique_name, base_lr=0.2, step=2).close()
        session = client.session(name)
        ours = callback(session)
    else:
        session = client.session(unique_name, step=2 if kind == "opened" else None)
        ours = callback(session)
        if kind == "sent":
            session.restart(2)
    model = make()
    before = [weight.tobytes() for weight in model.get_weights()]
    with pytest.raises(ResumeError, match=r"goes on at step 2.*initial_epoch"):
        fit(model, ours, epochs=4)
    assert [weight.tobytes() for weight in model.get_weights()] == before
    found = fit(model, ours, initial_epoch=2, epochs=4)["learning_rate"]
    assert found == sealed(client, session.name, 4)[2:]


def test_a_session_that_is_taken_back_ends_a_fit(
    keras: Any, make: Make, client: Client, unique_name: str
):
    """Its next epoch would be trained without the decisions in between."""

    class Back(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 4:
                session.restart(2)

    session = client.create_session(unique_name, base_lr=0.1)
    model, ours = make(), callback(session)
    with pytest.raises(ResumeError, match="goes on at step 2, and fit would train step"):
        fit(model, Back(), ours)
    assert fit(model, ours, initial_epoch=2)["learning_rate"] == sealed(client, unique_name, 6)[2:]
