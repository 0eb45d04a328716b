"""A training that really runs, at a pace that a browser can follow."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from pacesetter import Client
from serving import PATIENCE


class Training:
    """Takes the learning rate of each step from the service and reports a loss, in a thread.

    Args:
        url: Where the service is.
        name: Of the session.
        pace: Seconds that a step takes.
        step: Where it goes on in a session that is there already; None to create one.
        group: Whose learning rate it takes, where there are groups.
        spec: What the session is created with.
    """

    def __init__(
        self,
        url: str,
        name: str,
        pace: float = 0.02,
        step: int | None = None,
        group: str | None = None,
        **spec: Any,
    ) -> None:
        if step is None:
            spec = {
                "schedule": {"kind": "cosine", "total_steps": 10_000},
                "base_lr": 0.1,
                "total_steps": 10_000,
                "max_lookahead": 20,
                **spec,
            }
        self.name = name
        self._first = step or 0
        self._used: dict[int, float] = {}
        self._values: dict[int, dict[str, float]] = {}
        self._client = Client(url)
        self._session = self._client.session(name, step=step, **spec)
        self._pace, self._group = pace, group
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        step = self._first
        while not self._over.wait(self._pace):
            with self._turn:
                rate, values = self._session.lr(step, self._group), self._session.values(step)
                with self._moved:
                    self._used[step], self._values[step] = rate, values
                    self._moved.notify_all()
                self._session.report(step, loss=1 + 4 * math.exp(-step / 200))
            step += 1

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let it train no step meanwhile, as during an evaluation."""
        with self._turn:
            yield

    @property
    def used(self) -> dict[int, float]:
        """The learning rates that it has trained with by now, by step; a copy."""
        with self._moved:
            return dict(self._used)

    @property
    def values(self) -> dict[int, dict[str, float]]:
        """All values that the session has driven by now, by step; a copy."""
        with self._moved:
            return dict(self._values)

    @property
    def newest(self) -> int:
        """The newest step that it has trained; -1 before any."""
        return max(self.used, default=-1)

    def reach(self, step: int) -> dict[int, float]:
        """Wait until it has trained a step; return what it has trained with by then."""
        with self._moved:
            assert self._moved.wait_for(lambda: step in self._used, PATIENCE), f"no step {step}"
            return dict(self._used)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._session.close()
        self._client.close()
