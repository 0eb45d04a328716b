"""What the generators share: driving a library's own schedule, and writing its values down.

A generator runs in a virtual environment of its library alone (see `run.py`), so this imports
nothing but the standard library, and torch only where it is asked for.
"""

import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

GOLDEN = Path(__file__).parents[1]

MAX_BYTES = 300_000
"""The most that a file of golden values may take."""


def torch_optimizer(lr: float = 0.1, momentum: float = 0.9) -> Any:
    """Give an SGD optimizer of one parameter, whose steps change nothing."""
    import torch

    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)


def drive(
    optimizer: Any, advance: Callable[[int], object], steps: int, field: str = "lr"
) -> list[float]:
    """Train some steps and give what each of them was made with.

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
    """Give one case: what a library makes of some parameters.

    Args:
        kind: Our kind, such as `timm.CosineLRScheduler`.
        spec: The parameters of that kind, without `kind`.
        values: What the optimizer steps `start`, `start + 1`, ... use.
        base_lr: The base value of the group; the one of the channel where that is another.
        channel: What the values are of.
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


def write(
    library: str,
    version: str,
    precision: Literal["float64", "float32"],
    cases: list[dict[str, Any]],
) -> None:
    """Write `tests/golden/<library>.json`, one line for each case."""
    head = {
        "library": library,
        "version": version,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "float": precision,
    }
    lines = ",\n".join(json.dumps(each, allow_nan=False) for each in cases)
    opening = json.dumps(head)[:-1]
    text = f'{opening}, "cases": [\n{lines}\n]}}\n'
    json.loads(text)
    if len(text) > MAX_BYTES:
        raise SystemExit(f"{library}: {len(text)} bytes are too many; take fewer steps or cases")
    (GOLDEN / f"{library}.json").write_text(text)
    print(f"{library} {version}: {len(cases)} cases, {len(text)} bytes")
