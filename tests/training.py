"""A training that really runs, at a pace that a browser can follow."""

import math
import threading
import time
from types import TracebackType
from typing import Any, Self

from pacesetter import Client


class Training:
    """Takes the learning rate of each step from the service and reports a loss, in a thread.

    Args:
        url: Where the service is.
        name: Of the session.
        pace: Seconds that a step takes.
        spec: What the session is created with.
    """

    def __init__(self, url: str, name: str, pace: float = 0.02, **spec: Any) -> None:
        spec = {
            "schedule": {"kind": "cosine", "total_steps": 10_000},
            "base_lr": 0.1,
            "total_steps": 10_000,
            "max_lookahead": 20,
            **spec,
        }
        self.name = name
        self.used: dict[int, float] = {}
        """The learning rates that it has trained with, by step."""
        self._client = Client(url)
        self._session = self._client.session(name, **spec)
        self._pace = pace
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        step = 0
        while not self._over.is_set():
            self.used[step] = self._session.lr(step)
            self._session.report(step, loss=1 + 4 * math.exp(-step / 200))
            step += 1
            time.sleep(self._pace)

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
