"""Streams of metrics, and a controller that is fed with them and restarted on the way."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

from pacesetter_service.core.controllers import Controller, ControllerState, Sample


def losses_of(seed: int, count: int, noise: float = 0.1) -> list[float]:
    """Draw a loss that falls, stays for a while, and falls again, with correlated noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(count // 12, count // 3, size=40)
    slopes = np.repeat(np.where(np.arange(40) % 2 == 0, -4.0, 0.0) / count, lengths)[:count]
    wobble = np.zeros(count)
    for index, each in enumerate(rng.normal(0.0, noise, size=count)):
        wobble[index] = 0.5 * wobble[index - 1] + each
    return (5.0 + np.cumsum(slopes) + wobble).tolist()


def restarted(controller: Controller, state: ControllerState) -> ControllerState:
    """Write a state as JSON and read it back."""
    return controller.State.model_validate(json.loads(json.dumps(state.model_dump())))


def cuts_of(
    controller: Controller, values: Sequence[float], restarts: Iterable[int] = ()
) -> tuple[list[int], dict[str, float]]:
    """Feed values to a controller; return where it gave a verdict, and the final level."""
    state, levels, cuts, restarts = controller.init(), {"": 0.1}, [], set(restarts)
    for step, value in enumerate(values):
        if step in restarts:
            state = restarted(controller, state)
        state, verdict = _observed(
            controller, state, Sample("loss", step, value, levels, {"": 0.1})
        )
        if verdict is not None:
            cuts.append(step)
            levels = levels | verdict.levels
    return cuts, levels


def _observed(controller, state, seen):
    observation = controller.observe(state, seen)
    return observation.state, observation.verdict
