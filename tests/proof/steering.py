"""A training that a controller steers, and an operator who forks, rolls back and takes back.

Two ranks report a metric that stops improving again and again. Each decision makes the rate another
one, so that each value shows which decisions it comes from.
"""

import random
import threading
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from proof.history import Caller
from proof.roles import BASE, WINDOW

FACTOR = 0.99
PATIENCE = 1
THRESHOLD = 1e-4
RANKS = 2

PLATEAU: dict[str, Any] = {
    "kind": "plateau",
    "metric": "loss",
    "factor": FACTOR,
    "patience": PATIENCE,
    "threshold": THRESHOLD,
    "eps": 0.0,
}

FORKS = 2
"""The most forks of a session."""


@dataclass
class Steered:
    """A session with a controller.

    Attributes:
        name: Its name.
        trained: Steps that rank 0 has the values of, for rank 1, each with its attempt.
        forks: The names of its forks.
    """

    name: str
    trained: SimpleQueue[tuple[int, list[int]]] = field(default_factory=SimpleQueue)
    forks: list[str] = field(default_factory=list)


def steer(caller: Caller, session: Steered, stop: threading.Event) -> None:
    """Train as rank 0: report the loss, repeat reports, go back now and then, follow roll-backs."""
    name, dice, attempt, step, restarts = session.name, caller.dice, 1, 0, 0
    spec = {
        "name": name,
        "base_lr": BASE,
        "max_lookahead": WINDOW,
        "ranks": RANKS,
        "controllers": [PLATEAU],
    }
    caller.insist("create", name, "POST", "", spec, stop=stop)
    unsaid: list[int] = []
    said: list[int] = []
    while not stop.is_set():
        reports = [_reading(name, attempt, 0, each) for each in unsaid]
        if said and dice.random() < 0.3:  # another value of a reading that counts already
            reports.append({"step": dice.choice(said[-8:]), "metrics": {"loss": 7.0}})
        body = _wish(attempt, step, reports)
        noted = caller.insist("sync", name, "POST", f"/{name}/sync", body, stop=stop)
        if noted["status"] == 409:
            attempt, step = _joined(caller, name, (attempt, step), stop)
            unsaid, said = [], []
        if noted["status"] != 200:
            continue
        steps = list(range(step, step + len(noted["got"]["series"]["lr"])))
        said, unsaid, step = said + unsaid, steps, step + len(steps)
        session.trained.put((attempt, steps))
        stop.wait(0.1 * dice.random())  # so that there is something to look at that it has not
        if step > 4 * WINDOW and dice.random() < 0.05:
            restarts += 1
            back = dice.randrange(max(step - 3 * WINDOW, 1), step)
            asked = {"step": back, "key": f"{name}-restart-{restarts}"}
            opened = caller.insist("open", name, "POST", f"/{name}/attempts", asked, stop=stop)
            if opened["status"] in (200, 201):
                attempt, step, unsaid, said = opened["got"]["attempt"], back, [], []


def second(caller: Caller, session: Steered, stop: threading.Event) -> None:
    """Report as rank 1, sometimes late, and sometimes the later steps first."""
    waiting: list[tuple[int, list[int]]] = []
    while not stop.is_set():
        try:
            waiting.append(session.trained.get(timeout=0.05))
        except Empty:
            continue
        if len(waiting) < 3 and caller.dice.random() < 0.2:
            continue
        if caller.dice.random() < 0.1:
            waiting.reverse()
        for attempt, steps in waiting:
            _report(caller, session.name, attempt, 1, steps, stop)
        waiting = []


def govern(caller: Caller, session: Steered, stop: threading.Event) -> None:
    """Look ahead, take back what no trainer holds, roll back, and fork and train the forks."""
    name, dice, rolled = session.name, caller.dice, 0
    while not stop.is_set():
        stop.wait(0.03)
        looked = caller.call("look", name, "GET", f"/{name}")
        if looked["status"] != 200 or looked["got"]["horizon"] <= 4 * WINDOW:
            continue
        horizon = looked["got"]["horizon"]
        match dice.choices(("look ahead", "roll back", "fork"), (8, 1, 2))[0]:
            case "look ahead":
                wish = {"want": {"start": horizon, "count": WINDOW}}
                caller.call("ahead", name, "POST", f"/{name}/sync", wish)
                if dice.random() < 0.7:
                    why = {"reason": "it was looked at"}
                    caller.call("take back", name, "POST", f"/{name}/take-back", why)
            case "roll back":
                rolled += 1
                back = dice.randrange(horizon - 3 * WINDOW, horizon + 1)
                asked = {"step": back, "key": f"{name}-rolled-{rolled}"}
                caller.insist("open", name, "POST", f"/{name}/attempts", asked, stop=stop)
            case "fork" if len(session.forks) < FORKS:
                _branch(caller, session, dice.randrange(1, horizon + 1), stop)


def _branch(caller: Caller, session: Steered, step: int, stop: threading.Event) -> None:
    """Fork a session at a step, and train the fork for some windows."""
    fork = f"{session.name}-fork-{len(session.forks) + 1}"
    asked = {"name": fork, "step": step}
    made = caller.insist("fork", session.name, "POST", f"/{session.name}/fork", asked, stop=stop)
    if made["status"] not in (200, 201):  # the session was rolled back to before the step meanwhile
        return
    session.forks.append(fork)
    reports: list[dict[str, Any]] = []
    for _ in range(5):
        body = _wish(1, step, reports)
        noted = caller.insist("sync", fork, "POST", f"/{fork}/sync", body, stop=stop)
        if noted["status"] != 200:
            return
        steps = list(range(step, step + len(noted["got"]["series"]["lr"])))
        reports, step = [_reading(fork, 1, 0, each) for each in steps], step + len(steps)
        _report(caller, fork, 1, 1, steps, stop)


def _joined(
    caller: Caller, name: str, at: tuple[int, int], stop: threading.Event
) -> tuple[int, int]:
    """Return the newest attempt and its first step, for a trainer that was rolled back."""
    noted = caller.insist("attempts", name, "GET", f"/{name}/attempts", stop=stop)
    if noted["status"] != 200:
        return at
    newest = noted["got"]["attempts"][-1]
    return newest["attempt"], newest["start"]


def _report(
    caller: Caller, name: str, attempt: int, rank: int, steps: list[int], stop: threading.Event
) -> None:
    reports = [_reading(name, attempt, rank, each) for each in steps]
    body = {"attempt": attempt, "rank": rank, "reports": reports}
    caller.insist("sync", name, "POST", f"/{name}/sync", body, stop=stop)


def _wish(attempt: int, step: int, reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "rank": 0,
        "want": {"start": step, "count": WINDOW},
        "progress": {"step": step, "seconds_per_step": 0.1},
        "reports": reports,
    }


def _reading(name: str, attempt: int, rank: int, step: int) -> dict[str, Any]:
    """Return a loss that falls slowly, with so much noise that it often rises."""
    noise = random.Random(f"{name}-{attempt}-{rank}-{step}").random()
    return {"step": step, "metrics": {"loss": (0.5 + noise) / (1.0 + 0.01 * step)}}
