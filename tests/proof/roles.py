"""A trainer, an operator and a reader of sessions at constant rates.

Each value identifies its origin, since every order sets a rate that no other order sets.
"""

import random
import threading
from typing import Any

from proof.history import Caller

BASE = 1.0
"""The rate of every session until the first order."""

WINDOW = 4


def rate_of(number: int) -> float:
    """Return the rate that an order sets, and no other one."""
    return 0.5 + number * 2.0**-20


def train(caller: Caller, session: str, stop: threading.Event) -> None:
    """Train step by step: report, repeat reports, go back now and then, and act as a zombie.

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


def operate(
    caller: Caller, sessions: list[str], stop: threading.Event, *, keyless: bool = True
) -> None:
    """Order one rate after another; an order without an answer is repeated under its key.

    Args:
        caller: Calls the service.
        sessions: The sessions that get orders.
        stop: Ends the work.
        keyless: Whether every fourth order has no key: it is sent once, whatever its answer is.
    """
    number = 0
    while not stop.is_set():
        number += 1
        session = caller.dice.choice(sessions)
        act = {"kind": "set", "lr": rate_of(number)}
        path, key = f"/{session}/actions", f"order-{number}"
        while not stop.is_set():
            if keyless and number % 4 == 0:
                noted = caller.call("act", session, "POST", path, act)
            else:
                noted = caller.insist("act", session, "POST", path, act, key=key, stop=stop)
            if noted["status"] != 404:  # its trainer has not created it yet
                break
            stop.wait(0.05)
        stop.wait(0.03)


def read(caller: Caller, sessions: list[str], stop: threading.Event) -> None:
    """Read sessions, the values of attempts, and explanations."""
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
