"""The examples of the articles that inspired the project, served by the service.

Their code runs beside it, as printed, and is compared with what the service hands out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from serving import open_http

Serve = Callable[..., list[float]]


@pytest.fixture(name="serve")
def _serve(server_url: str, unique_name: str) -> Iterator[Serve]:
    """Return a function that creates a session and takes its first values, one call a step."""
    with open_http(server_url) as http:

        def serve(steps: int, metrics: Callable[[int], float] | None = None, **spec: Any) -> Any:
            http.post("/v1/sessions", json={"name": unique_name, **spec}).raise_for_status()
            rates = []
            for step in range(steps):
                reports = (
                    [{"step": step - 1, "metrics": {"val_loss": metrics(step - 1)}}]
                    if metrics and step
                    else []
                )
                body = {"step": step, "reports": reports}
                answer = http.post(f"/v1/sessions/{unique_name}/sync", json=body)
                rates.append(answer.raise_for_status().json()["lr"])
            return rates

        yield serve


def test_the_printed_lines_of_the_step_example(serve: Serve) -> None:
    """StepLR(step_size=10, gamma=0.9) from 0.1, printed after each of 30 epochs."""
    rates = serve(31, base_lr=0.1, schedule={"kind": "step", "step_size": 10, "gamma": 0.9})
    lines = [f"Epoch {epoch}: Learning Rate = {rates[epoch]:.5f}" for epoch in range(1, 31)]
    printed = ["0.10000"] * 9 + ["0.09000"] * 10 + ["0.08100"] * 10 + ["0.07290"]
    assert lines == [
        f"Epoch {epoch}: Learning Rate = {value}" for epoch, value in enumerate(printed, 1)
    ]


class WarmupCosineSchedule:
    """The article's class, without its optimizer."""

    def __init__(
        self, warmup_epochs: int, total_epochs: int, base_lr: float, min_lr: float = 1e-6
    ) -> None:
        self.warmup_epochs = warmup_epochs
        self.total_epochs = total_epochs
        self.base_lr = base_lr
        self.min_lr = min_lr
        self.current_epoch = 0

    def step(self) -> float:
        """As printed."""
        if self.current_epoch < self.warmup_epochs:
            lr = self.base_lr * (self.current_epoch + 1) / self.warmup_epochs
        else:
            progress = (self.current_epoch - self.warmup_epochs) / (
                self.total_epochs - self.warmup_epochs
            )
            lr = self.min_lr + (self.base_lr - self.min_lr) * 0.5 * (1 + np.cos(np.pi * progress))
        self.current_epoch += 1
        return float(lr)


def test_the_warmup_cosine_class(serve: Serve) -> None:
    """WarmupCosineSchedule(10, 100, 1e-3) is the kind `warmup_cosine`."""
    article = WarmupCosineSchedule(10, 100, 1e-3)
    rates = serve(
        100,
        base_lr=1e-3,
        schedule={
            "kind": "warmup_cosine",
            "warmup_steps": 10,
            "total_steps": 100,
            "min_lr": 1e-6,
        },
    )
    assert_allclose(rates, [article.step() for _ in range(100)], rtol=1e-12)


class OneCycleScheduler:
    """The article's class, without its optimizer."""

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25,
        final_div_factor: float = 1e4,
    ) -> None:
        self.max_lr = max_lr
        self.total_steps = total_steps
        self.step_num = 0
        self.warmup_steps = int(total_steps * pct_start)
        self.start_lr = max_lr / div_factor
        self.final_lr = max_lr / final_div_factor

    def step(self) -> float:
        """As printed."""
        if self.step_num < self.warmup_steps:
            lr = self.start_lr + (self.max_lr - self.start_lr) * self.step_num / self.warmup_steps
        else:
            progress = (self.step_num - self.warmup_steps) / (self.total_steps - self.warmup_steps)
            lr = self.final_lr + (self.max_lr - self.final_lr) * 0.5 * (
                1 + np.cos(np.pi * progress)
            )
        self.step_num += 1
        return float(lr)


def test_the_one_cycle_class(serve: Serve) -> None:
    """OneCycleScheduler(0.5, 1000) is a ramp up and a cosine down; its end differs from torch's."""
    article = OneCycleScheduler(0.5, 1000)
    down: dict[str, Any] = {"kind": "ramp", "end": 0.5 / 1e4, "steps": 700, "ease": "cosine"}
    rates = serve(
        1000,
        base_lr=0.5,
        schedule={
            "kind": "sequence",
            "parts": [
                {
                    "schedule": {"kind": "ramp", "start": 0.5 / 25, "end": "base", "steps": 300},
                    "steps": 300,
                },
                {"schedule": down},
            ],
        },
    )
    assert_allclose(rates, [article.step() for _ in range(1000)], rtol=1e-12)
    assert rates[-1] > 0.5 / 1e4 > 0.5 / 25 / 1e4, "torch ends at max_lr / 25 / 1e4"


def step_lr(epoch: int, lr: float) -> float:
    """As printed."""
    return lr * 0.5 if epoch % 20 == 0 and epoch > 0 else lr


def exp_lr(_epoch: int, lr: float) -> float:
    """As printed."""
    return lr * 0.95


def cosine_lr(epoch: int, _lr: float) -> float:
    """As printed."""
    lr_min, lr_max = 0.001, 0.1
    max_epochs = 100
    return lr_min + 0.5 * (lr_max - lr_min) * (1 + np.cos(epoch * np.pi / max_epochs))


def cyclical_lr(epoch: int, _lr: float) -> float:
    """As printed."""
    base_lr = 0.001
    max_lr = 0.1
    step_size = 20
    cycle = np.floor(1 + epoch / (2 * step_size))
    x = np.abs(epoch / step_size - 2 * cycle + 1)
    return base_lr + (max_lr - base_lr) * max(0, (1 - x))


KERAS_STYLE: dict[str, tuple[Callable[[int, float], float], dict[str, Any]]] = {
    "step": (
        step_lr,
        {"base_lr": 0.1, "schedule": {"kind": "step", "step_size": 20, "gamma": 0.5}},
    ),
    # The callback multiplies at epoch 0 already, so that its curve starts one factor lower.
    "exponential": (
        exp_lr,
        {"base_lr": 0.1 * 0.95, "schedule": {"kind": "exponential", "gamma": 0.95}},
    ),
    "cosine": (
        cosine_lr,
        {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 100, "min_lr": 0.001}},
    ),
    "cyclical": (
        cyclical_lr,
        {
            "base_lr": 0.1,
            "schedule": {"kind": "cyclic", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 20},
        },
    ),
}


@pytest.mark.parametrize(("function", "spec"), KERAS_STYLE.values(), ids=KERAS_STYLE)
def test_the_keras_style_functions(
    serve: Serve, function: Callable[[int, float], float], spec: dict[str, Any]
) -> None:
    """Each of the functions gives, epoch by epoch, what the service hands out."""
    lr, expected = 0.1, []
    for epoch in range(100):
        lr = function(epoch, lr)
        expected.append(lr)
    assert_allclose(serve(100, **spec), expected, rtol=1e-12, atol=1e-17)


def test_the_plateau_callback(serve: Serve) -> None:
    """The fifth one watches the validation loss and cuts where it stops improving."""
    losses = [max(1.0 - 0.1 * epoch, 0.5 if epoch < 30 else 0.4) for epoch in range(60)]
    lr, best, bad, expected = 0.1, float("inf"), 0, []
    for epoch in range(60):
        expected.append(lr)
        if losses[epoch] < best - 1e-4:
            best, bad = losses[epoch], 0
        else:
            bad += 1
        if bad > 10:
            lr, bad = max(lr * 0.5, 1e-5), 0
    rates = serve(
        60,
        metrics=lambda epoch: losses[epoch],
        base_lr=0.1,
        controllers=[
            {
                "kind": "plateau",
                "metric": "val_loss",
                "factor": 0.5,
                "patience": 10,
                "threshold": 1e-4,
                "threshold_mode": "abs",
                "min_lr": 1e-5,
            }
        ],
    )
    assert rates == expected
    assert len(set(rates)) > 2, "the plateau was never reached"
