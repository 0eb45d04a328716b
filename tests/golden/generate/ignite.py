"""Values that ignite's parameter schedulers set at the start of each event, as an engine does."""

# requires: torch==2.13.0 numpy==2.4.6 pytorch-ignite==0.5.5

from importlib.metadata import version
from typing import Any

from common import case, torch_optimizer, write
from ignite import handlers
from ignite.engine import Engine, Events
from ignite.handlers import param_scheduler
from torch.optim import lr_scheduler as torch_lr

TORCH = {
    "step": torch_lr.StepLR,
    "exponential": torch_lr.ExponentialLR,
    "cosine": torch_lr.CosineAnnealingLR,
}
"""Our kinds that stand for schedulers of torch in the cases."""


def made(law: dict[str, Any], optimizer: Any) -> Any:
    """Make ignite's scheduler of a spec of ours, with what is nested in it."""
    name = law["kind"].removeprefix("ignite.")
    arguments = {key: value for key, value in law.items() if key != "kind"}
    if name in TORCH:
        return TORCH[name](optimizer, *arguments.values())
    if name == "ConcatScheduler":
        nested = [made(each, optimizer) for each in arguments.pop("schedulers")]
        wrapped = [
            each if hasattr(each, "attach") else handlers.LRScheduler(each) for each in nested
        ]
        return handlers.ConcatScheduler(wrapped, **arguments)
    if name == "create_lr_scheduler_with_warmup":
        nested = made(arguments.pop("lr_scheduler"), optimizer)
        return handlers.create_lr_scheduler_with_warmup(nested, **arguments)
    if "milestones_values" in arguments:
        arguments["milestones_values"] = [tuple(pair) for pair in arguments["milestones_values"]]
    return getattr(param_scheduler, name)(optimizer, "lr", **arguments)


def run(law: dict[str, Any], steps: int, lr: float) -> list[float]:
    """Train with a scheduler attached to the start of each iteration."""
    optimizer = torch_optimizer(lr)
    scheduler = made(law, optimizer)
    values = []

    def train(_engine: Engine, _batch: object) -> None:
        values.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()

    trainer = Engine(train)
    trainer.add_event_handler(Events.ITERATION_STARTED, scheduler)
    trainer.run(range(steps), max_epochs=1)
    return values


def cycles(size: int, start: float = 0.1, end: float = 0.001, **more: Any) -> dict[str, Any]:
    """Write the parameters of a cycle."""
    return {"start_value": start, "end_value": end, "cycle_size": size, **more}


def kind(name: str, **spec: Any) -> dict[str, Any]:
    """Write one of our specs."""
    return {"kind": name, **spec}


def warmed(law: dict[str, Any], start: float, duration: int, **more: Any) -> dict[str, Any]:
    """Write the parameters of a warmup."""
    return {
        "lr_scheduler": law,
        "warmup_start_value": start,
        "warmup_duration": duration,
        **more,
    }


DECAY = kind("exponential", gamma=0.98)
ANNEAL = kind("ignite.CosineAnnealingScheduler", **cycles(40))

LAWS: list[tuple[str, str, dict[str, Any], int]] = [
    ("LinearCyclicalScheduler", "defaults", cycles(30), 100),
    ("LinearCyclicalScheduler", "an odd cycle from below", cycles(7, 0.0, 0.3), 30),
    ("LinearCyclicalScheduler", "shortest", cycles(2, 0.1, 1e-7), 7),
    ("LinearCyclicalScheduler", "there only", cycles(20, monotonic=True), 70),
    ("LinearCyclicalScheduler", "longer each time", cycles(10, cycle_mult=2.0), 100),
    ("LinearCyclicalScheduler", "longer and cut", cycles(7, cycle_mult=1.5), 130),
    (
        "LinearCyclicalScheduler",
        "ends that shrink",
        cycles(16, start_value_mult=0.5, end_value_mult=0.9),
        100,
    ),
    (
        "LinearCyclicalScheduler",
        "there only with a warmup",
        cycles(20, monotonic=True, warmup_duration=5),
        90,
    ),
    (
        "LinearCyclicalScheduler",
        "all at once",
        cycles(
            10,
            monotonic=True,
            warmup_duration=4,
            cycle_mult=2.0,
            start_value_mult=0.7,
            end_value_mult=1.1,
        ),
        150,
    ),
    ("CosineAnnealingScheduler", "defaults", cycles(30), 100),
    ("CosineAnnealingScheduler", "down to 0", cycles(90, 0.1, 0.0), 200),
    ("CosineAnnealingScheduler", "a long one down to 0", cycles(1000, 0.1, 0.0), 1005),
    ("CosineAnnealingScheduler", "up", cycles(25, 0.0, 0.3), 60),
    ("CosineAnnealingScheduler", "longer each time", cycles(9, cycle_mult=3.0), 130),
    ("CosineAnnealingScheduler", "longer and cut", cycles(9, cycle_mult=1.3), 130),
    ("CosineAnnealingScheduler", "warmup", cycles(21, warmup_duration=6), 100),
    (
        "CosineAnnealingScheduler",
        "ends that shrink",
        cycles(16, start_value_mult=0.5, end_value_mult=0.9),
        100,
    ),
    (
        "CosineAnnealingScheduler",
        "all at once",
        cycles(10, warmup_duration=4, cycle_mult=2.0, start_value_mult=0.7, end_value_mult=1.1),
        150,
    ),
    (
        "PiecewiseLinear",
        "ordinary",
        {"milestones_values": [[10, 0.5], [20, 0.45], [21, 0.3], [70, 0.0]]},
        90,
    ),
    (
        "PiecewiseLinear",
        "jumps",
        {"milestones_values": [[0, 0.1], [10, 0.2], [10, 0.05], [10, 0.02], [30, 0.0], [30, 0.1]]},
        40,
    ),
    ("PiecewiseLinear", "one milestone", {"milestones_values": [[5, 0.5]]}, 10),
    (
        "ConcatScheduler",
        "three",
        {
            "schedulers": [
                kind("ignite.LinearCyclicalScheduler", **cycles(20)),
                kind("ignite.CosineAnnealingScheduler", **cycles(15, 0.2, 0.01)),
                kind("ignite.PiecewiseLinear", milestones_values=[[0, 0.3], [10, 0.02]]),
            ],
            "durations": [33, 20],
        },
        80,
    ),
    ("create_lr_scheduler_with_warmup", "a torch scheduler", warmed(DECAY, 0.0, 10), 60),
    (
        "create_lr_scheduler_with_warmup",
        "a torch scheduler and its first value",
        warmed(DECAY, 0.0, 3, warmup_end_value=0.1),
        30,
    ),
    (
        "create_lr_scheduler_with_warmup",
        "a torch scheduler and another value",
        warmed(kind("cosine", total_steps=50), 0.01, 8, warmup_end_value=0.3),
        58,
    ),
    (
        "create_lr_scheduler_with_warmup",
        "a torch scheduler in two steps",
        warmed(kind("step", step_size=5, gamma=0.5), 0.02, 2),
        30,
    ),
    (
        "create_lr_scheduler_with_warmup",
        "a scheduler of ignite and its first value",
        warmed(ANNEAL, 0.0, 10, warmup_end_value=0.1),
        60,
    ),
    ("create_lr_scheduler_with_warmup", "a scheduler of ignite", warmed(ANNEAL, 0.01, 2), 60),
    (
        "create_lr_scheduler_with_warmup",
        "a scheduler of ignite and another value",
        warmed(ANNEAL, 0.3, 10, warmup_end_value=0.05),
        60,
    ),
]
"""Scheduler, what it shows, parameters and how many steps; of more than 300 the last 100."""


def main() -> None:
    """Write the values."""
    cases = []
    for name, note, spec, steps in LAWS:
        start = steps - 100 if steps > 300 else 0
        values = run(kind(f"ignite.{name}", **spec), steps, 0.1)[start:]
        cases.append(case(f"ignite.{name}", spec, values, start=start, note=note))
    write("ignite", version("pytorch-ignite"), "float64", cases)


main()
