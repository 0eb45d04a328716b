"""Helpers of the generators: they drive a library's own schedule, and write down its values.

A generator runs in a virtual environment of its library alone (see `run.py`), so this imports
nothing but the standard library, and torch only where it is asked for.
"""

import json
import math
import platform
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

GOLDEN = Path(__file__).parents[1]

MAX_BYTES = 300_000
"""The most bytes that a file of golden values may take."""


def torch_optimizer(lr: float = 0.1, momentum: float = 0.9) -> Any:
    """Return an SGD optimizer of one parameter, whose steps change nothing."""
    import torch

    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)


def drive(
    optimizer: Any, advance: Callable[[int], object], steps: int, field: str = "lr"
) -> list[float]:
    """Train some steps, and return the value that each of them was made with.

    Args:
        optimizer: A torch optimizer that a scheduler writes to.
        advance: Steps the scheduler after each optimizer step; gets the number of the step made.
        steps: How many optimizer steps to make.
        field: What to read of the first parameter group.
    """
    values = []
    for step in range(steps):
        values.append(float(optimizer.param_groups[0][field]))
        optimizer.step()
        advance(step)
    return values


def case(
    kind: str,
    spec: dict[str, Any],
    values: Iterable[float],
    *,
    base_lr: float = 0.1,
    channel: str = "lr",
    start: int = 0,
    note: str | None = None,
    pace: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Return one case: what a library makes of some parameters.

    Args:
        kind: Our kind, such as `timm.CosineLRScheduler`.
        spec: The parameters of that kind, without `kind`.
        values: What the optimizer steps `start`, `start + 1`, ... use.
        base_lr: The base value of the group; the one of the channel where that is another.
        channel: The channel of the values.
        start: The step of the first value.
        note: What this case shows beyond the ordinary; it becomes part of the test's name.
        pace: What turns lengths into steps, if `spec` has any in other units (`steps_per_epoch`).
    """
    made = {
        "kind": kind,
        "spec": spec,
        "base_lr": base_lr,
        "channel": channel,
        "start": start,
        "values": [float(value).hex() for value in values],
    }
    extras = {"note": note, "pace": pace}
    return made | {name: extra for name, extra in extras.items() if extra is not None}


def metric_streams() -> dict[str, list[float]]:
    """Return metrics as trainings have them, and as they should not: the same ones each time.

    All but the hundredths are multiples of 1/64 and so exact in float32 too, and none begins with
    NaN or an infinity: some libraries never recover from that.
    """
    noise = random.Random(7)
    falling = [4 * 0.93**step + noise.gauss(0, 0.1) for step in range(60)]
    streams = {
        "falling": falling,
        "rising": [1 - value / 5 for value in falling],
        "below zero": [value - 5 for value in falling],
        "up and down": [2 + math.sin(step / 4) + noise.gauss(0, 0.2) for step in range(60)],
        "constant": [0.5] * 30,
        "stairs": [1 - step // 6 / 64 for step in range(48)],
        "a lucky value": [2.0, 1.0, 0.25, *(1.5 - step / 64 for step in range(50))],
    }
    exact = {name: [round(value * 64) / 64 for value in of] for name, of in streams.items()}
    odd = [math.nan, math.inf, math.nan, math.nan, math.inf]
    exact["now and then no number"] = [
        odd[step // 7 % 5] if step % 7 == 3 else value
        for step, value in enumerate(exact["falling"])
    ]
    exact["no number any more"] = [*exact["falling"][:12], *[math.nan] * 30]
    exact["minus infinity"] = [*exact["falling"][:20], -math.inf, *exact["falling"][20:40]]
    hundredths = [n / 100 for start in range(3) for n in range(start, 60 + start, 2)]
    return exact | {"hundredths up": hundredths, "hundredths down": hundredths[::-1]}


def under_plateaus(
    kind: str,
    specs: dict[str, dict[str, Any]],
    run: Callable[[dict[str, Any], list[float]], list[float]],
) -> list[dict[str, Any]]:
    """Return what a library's rule makes of a rate of 0.1 when it sees each stream of metrics.

    Args:
        kind: Our kind of controller, such as `keras.ReduceLROnPlateau`.
        specs: Parameters of that kind, without `kind` and `metric`, by what they show.
        run: Gives the rates of a training of as many steps as there are metrics, the first of which
            is measured at its first step.
    """
    return [
        {
            "kind": kind,
            "spec": spec,
            "note": note,
            "base_lr": 0.1,
            "metrics": stream,
            "changes": _changes(run(spec, metrics)),
        }
        for note, spec in specs.items()
        for stream, metrics in metric_streams().items()
    ]


def _changes(values: list[float]) -> dict[int, str]:
    """Return the values that differ from those before them, by their steps."""
    return {
        step: value.hex()
        for step, value in enumerate(values)
        if step == 0 or value != values[step - 1]
    }


def write(
    library: str,
    version: str,
    precision: Literal["float64", "float32"],
    cases: list[dict[str, Any]],
    controllers: list[dict[str, Any]] | None = None,
) -> None:
    """Write `tests/golden/<library>.json`, one line for each case of schedules and controllers."""
    head: dict[str, Any] = {
        "library": library,
        "version": version,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "float": precision,
    }
    if controllers:
        streams = metric_streams().items()
        head["metrics"] = {name: [value.hex() for value in of] for name, of in streams}
    text = json.dumps(head)[:-1] + _lines("cases", cases)
    text += (_lines("controllers", controllers) if controllers else "") + "}\n"
    json.loads(text)
    if len(text) > MAX_BYTES:
        raise SystemExit(f"{library}: {len(text)} bytes are too many; take fewer steps or cases")
    (GOLDEN / f"{library}.json").write_text(text)
    count = len(cases) + len(controllers or ())
    print(f"{library} {version}: {count} cases, {len(text)} bytes")


def _lines(section: str, cases: list[dict[str, Any]]) -> str:
    lines = ",\n".join(json.dumps(each, allow_nan=False) for each in cases)
    return f', "{section}": [\n{lines}\n]'
