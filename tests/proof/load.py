"""All kinds of callers that call concurrently, for as long as a block of code lasts."""

import threading
import time
from collections.abc import Callable
from typing import Self

from proof.history import Caller, History
from proof.roles import operate, read, train
from proof.steering import Steered, govern, second, steer


class Load:
    """Trainers, operators and a reader at some addresses, for as long as the block lasts.

    Args:
        urls: The addresses.
        timeout: After how many seconds a caller gives up on an answer.
        sessions: How many sessions are at a constant rate until an operator orders another one.
        steered: How many a controller steers.
        keyless: Whether some orders have no key; a network that doubles requests doubles these.
    """

    def __init__(
        self,
        urls: list[str],
        timeout: float = 10.0,
        sessions: int = 2,
        steered: int = 1,
        *,
        keyless: bool = True,
    ) -> None:
        self.history = History()
        self.stop = threading.Event()
        self.sessions = [f"run-{number}" for number in range(sessions)]
        self.steered = [Steered(f"steered-{number}") for number in range(steered)]
        self.urls, self._timeout = urls, timeout
        self._keyless = keyless
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for session in self.sessions:
            self._start(
                f"trainer of {session}", lambda caller, one=session: train(caller, one, self.stop)
            )
        for each in self.steered:
            for who, work in (("rank 0", steer), ("rank 1", second), ("operator", govern)):
                self._start(
                    f"{who} of {each.name}",
                    lambda caller, one=each, does=work: does(caller, one, self.stop),
                )
        if self.sessions:
            self._start(
                "operator",
                lambda caller: operate(caller, self.sessions, self.stop, keyless=self._keyless),
            )
        self._start("reader", lambda caller: read(caller, self._begun(), self.stop))
        return self

    def _begun(self) -> list[str]:
        """Return the names of the sessions that trainers create."""
        return [*self.sessions, *(each.name for each in self.steered)]

    def _start(self, who: str, work: Callable[[Caller], None]) -> None:
        def run() -> None:
            caller = Caller(self.history, who, self.urls, self._timeout)
            try:
                work(caller)
            except BaseException as failure:
                self._failures.append(failure)
            finally:
                caller.close()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def await_answers(self, more: int, patience: float = 120.0) -> None:
        """Wait until that many more calls were answered."""
        wanted, deadline = self.history.answered + more, time.monotonic() + patience
        while self.history.answered < wanted:
            assert time.monotonic() < deadline, "nothing goes on"
            assert not self._failures, self._failures
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(120.0)

    def audit(self, url: str) -> History:
        """Record what the service has in the end, each session's whole record."""
        assert not self._failures, self._failures
        caller = Caller(self.history, "auditor", [url], 60.0)
        for session in [*self._begun(), *(fork for one in self.steered for fork in one.forks)]:
            caller.insist("record", session, "GET", f"/{session}/export", stop=threading.Event())
        caller.close()
        return self.history
