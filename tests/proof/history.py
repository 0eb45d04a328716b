"""What trainers, operators and readers asked and were answered, written down call by call.

The load is such that each value tells where it comes from: a session is constant, and every order
sets a rate that no other order sets.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

BASE = 1.0
"""The rate of every session until the first order."""

WINDOW = 4


def rate_of(number: int) -> float:
    """Return the rate that an order sets: no other order sets it."""
    return 0.5 + number * 2.0**-20


class History:
    """Calls and answers, as they came; times are in seconds, by the machine's monotonic clock."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def keep(self, path: Path) -> None:
        """Write it down, a call a line."""
        path.write_text("".join(json.dumps(each) + "\n" for each in list(self.calls)))

    @property
    def answered(self) -> int:
        """How many calls were answered as they should be."""
        return sum(each["status"] in (200, 201) for each in list(self.calls))


class Caller:
    """Somebody who calls, at whichever of several addresses, and writes down what comes."""

    def __init__(self, history: History, who: str, urls: list[str], timeout: float) -> None:
        self._history, self._who, self._urls = history, who, urls
        self.dice = random.Random(who)
        self.timeout = timeout
        self._http = httpx.Client(timeout=timeout, trust_env=False, verify=False)

    def call(
        self,
        kind: str,
        session: str,
        method: str,
        path: str,
        sent: dict[str, Any] | None = None,
        key: str = "",
    ) -> dict[str, Any]:
        """Call once; an answer that does not come has no status."""
        noted: dict[str, Any] = {
            "who": self._who,
            "kind": kind,
            "session": session,
            "sent": sent or {},
            "key": key,
            "bound": self.timeout,
            "begin": time.monotonic(),
            "status": None,
            "got": None,
        }
        headers = {"Pacesetter-Actor": self._who, **({"Idempotency-Key": key} if key else {})}
        url = self.dice.choice(self._urls)
        try:
            answer = self._http.request(
                method,
                f"{url}/v1/sessions{path}",
                json=sent if method == "POST" else None,
                params=sent if method == "GET" else None,
                headers=headers,
            )
            noted["status"] = answer.status_code
            noted["got"] = answer.text if kind == "record" else answer.json()
        except (httpx.TransportError, json.JSONDecodeError):
            noted["status"] = None
        noted["end"] = time.monotonic()
        self._history.calls.append(noted)
        return noted

    def insist(self, *call: Any, stop: threading.Event, **more: Any) -> dict[str, Any]:
        """Call until it is answered, in whatever way, or told to stop."""
        while True:
            noted = self.call(*call, **more)
            if noted["status"] not in (None, 503, 507) or stop.is_set():
                return noted
            stop.wait(0.02)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


def train(caller: Caller, session: str, stop: threading.Event) -> None:
    """Train step by step; report, repeat reports, go back now and then, and haunt the new attempt.

    Repeated reports have another value, which must not count.
    """
    dice, attempt, step, restarts = caller.dice, 1, 0, 0
    spec = {"name": session, "base_lr": BASE, "max_lookahead": WINDOW}
    caller.insist("create", session, "POST", "", spec, stop=stop)
    unsaid: list[int] = []
    said: list[int] = []
    path = f"/{session}/sync"
    while not stop.is_set():
        reports = [_reading(session, each) for each in unsaid[:8]]
        if said and dice.random() < 0.3:
            reports.append({"step": dice.choice(said[-8:]), "metrics": {"loss": -1.0}})
        body = {
            "attempt": attempt,
            "want": {"start": step, "count": WINDOW},
            "progress": {"step": step, "seconds_per_step": 0.1},
            "reports": reports,
        }
        noted = caller.insist("sync", session, "POST", path, body, stop=stop)
        if noted["status"] != 200:
            continue
        said += unsaid[:8]
        unsaid = unsaid[8:] + list(range(step, step + len(noted["got"]["series"]["lr"])))
        step += len(noted["got"]["series"]["lr"])
        if step > 4 * WINDOW and dice.random() < 0.08:
            restarts += 1
            back = dice.randrange(max(step - 3 * WINDOW, 1), step)
            asked = {"step": back, "key": f"{session}-restart-{restarts}"}
            opened = caller.insist(
                "open", session, "POST", f"/{session}/attempts", asked, stop=stop
            )
            if opened["status"] not in (200, 201):
                continue
            # The process before is not dead yet: it reports, and asks for more.
            haunting = {**body, "reports": [_reading(session, step - 1)]}
            haunting["want"] = {"start": step, "count": WINDOW}
            for _ in range(2):
                caller.call("sync", session, "POST", path, haunting)
            attempt, step = opened["got"]["attempt"], back
            unsaid, said = [], []


def _reading(session: str, step: int) -> dict[str, Any]:
    return {"step": step, "metrics": {"loss": random.Random(f"{session}-{step}").random()}}


def operate(caller: Caller, sessions: list[str], stop: threading.Event) -> None:
    """Order one rate after another; what is not answered is repeated under its key."""
    number = 0
    while not stop.is_set():
        number += 1
        session = caller.dice.choice(sessions)
        act = {"kind": "set", "lr": rate_of(number)}
        path, key = f"/{session}/actions", f"order-{number}"
        while not stop.is_set():
            noted = caller.insist("act", session, "POST", path, act, key=key, stop=stop)
            if noted["status"] != 404:  # its trainer has not created it yet
                break
            stop.wait(0.05)
        stop.wait(0.03)


def read(caller: Caller, sessions: list[str], stop: threading.Event) -> None:
    """Look at sessions, at what attempts were given, and at explanations."""
    while not stop.is_set():
        session = caller.dice.choice(sessions)
        noted = caller.call("look", session, "GET", f"/{session}")
        if noted["status"] == 200 and noted["got"]["horizon"] > 0:
            step = caller.dice.randrange(noted["got"]["horizon"])
            caller.call("explain", session, "GET", f"/{session}/explain", {"step": step})
            attempt = caller.dice.randint(1, noted["got"]["attempt"])
            sent = {"step": max(step - 4, 0), "count": 4, "attempt": attempt}
            caller.call("values", session, "GET", f"/{session}/lr", sent)
        stop.wait(0.01)


class Load:
    """Two trainers, an operator and a reader at some addresses, for as long as the block lasts."""

    def __init__(self, urls: list[str], timeout: float = 10.0, sessions: int = 2) -> None:
        self.history = History()
        self.stop = threading.Event()
        self.sessions = [f"run-{number}" for number in range(sessions)]
        self.urls, self._timeout = urls, timeout
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for session in self.sessions:
            self._start(
                f"trainer of {session}", lambda caller, one=session: train(caller, one, self.stop)
            )
        self._start("operator", lambda caller: operate(caller, self.sessions, self.stop))
        self._start("reader", lambda caller: read(caller, self.sessions, self.stop))
        return self

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
        """Wait until so many more calls were answered."""
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
        """Write down what the service has in the end, each session's whole record."""
        assert not self._failures, self._failures
        caller = Caller(self.history, "auditor", [url], 60.0)
        for session in self.sessions:
            caller.insist("record", session, "GET", f"/{session}/export", stop=threading.Event())
        caller.close()
        return self.history
