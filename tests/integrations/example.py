"""Runs the examples of the integrations, and records the rates that their optimizers used.

As a program, `python example.py EXAMPLE FOLDER` writes a file for each process, by its rank.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed.launch import left_at_once

EXAMPLES = Path(__file__).parents[2] / "examples/integrations"


def run(name: str) -> dict[str, Any]:
    """Run an example as a program, in this process, and return its globals."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@contextmanager
def recorded_updates() -> Iterator[list[str]]:
    """Record the learning rate of each update of any torch optimizer, to the bit, as it happens."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    updates: list[str] = []

    def record(optimizer: Any, *_: Any) -> None:
        (rate,) = {float(group["lr"]).hex() for group in optimizer.param_groups}
        updates.append(rate)

    hook = register_optimizer_step_pre_hook(record)
    try:
        yield updates
    finally:
        hook.remove()


if __name__ == "__main__":
    with recorded_updates() as found:
        run(sys.argv[1])
    file = Path(sys.argv[2]) / f"rank-{os.environ.get('RANK', '0')}.json"
    file.write_text(json.dumps(found))
    left_at_once()
