"""Listeners to the reports of a training, such as its experiment tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from pacesetter._reports import Value

OnReport: TypeAlias = Callable[[int, dict[str, float]], object]


class Subscription:
    """One listener, which may be told of a metric only once every few steps.

    Args:
        listener: Called with a step and its numbers by name.
        every: Steps between two values of a metric that it is told. Values in between are not even
            read, so that the training does not wait for an accelerator.

    Raises:
        ValueError: `every` is less than 1.
    """

    def __init__(self, listener: OnReport, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every={every}: give a number of steps, 1 for all of them")
        self._listener = listener
        self._every = every
        self._told: dict[str, int] = {}

    def tell(self, step: int, metrics: Mapping[str, Value], values: Mapping[str, float]) -> None:
        """Report the metrics that are due, beside the values of the series at their step."""
        due = [name for name in metrics if self._is_due(name, step)]
        if not due:
            return
        self._told.update(dict.fromkeys(due, step))
        self._listener(step, {**{name: float(metrics[name]) for name in due}, **values})

    def _is_due(self, name: str, step: int) -> bool:
        last = self._told.get(name)
        # A training that went back to an earlier step is followed there.
        return last is None or not last < step < last + self._every
