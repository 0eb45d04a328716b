"""What is wrong with a session, as far as its state tells, and what to do about it."""

from collections.abc import Iterator
from math import isfinite
from typing import Literal, NamedTuple

from pacesetter_service.core.session import Session
from pacesetter_service.core.watching import plan_end
from pacesetter_service.dashboard import wording
from pacesetter_service.dashboard.facts import Facts

Gravity = Literal["bad", "warn"]

HOUR = 3600.0

FAR_SECONDS = HOUR
"""An order whose step is more than this many seconds away is far away,"""

FAR_STEPS = 10_000
"""or, if no trainer has said its pace, more than this many steps."""

ABOUT_METRICS = {"metric_never_seen", "metric_stopped", "rank_silent"}
"""Notices that are over once their metric is measured again."""

ADVICE = {
    "metric_never_seen": "Report it under that name, or say with silent_after how seldom it comes.",
    "metric_stopped": "See whether the trainer still reports it.",
    "rank_silent": "See whether that rank runs; a quorum and a deadline do not wait for all.",
    "left_family": "See whether data, batch size and applied rates are as in the other sessions.",
    "relative_threshold": "Use plateau with another threshold_mode in the next session, or fork.",
}
"""Troubles by the code of a session's own notices."""

DIVERGED = 2.0
"""A loss this many times its spread above its best is going up."""


class Trouble(NamedTuple):
    """One thing that is wrong.

    Attributes:
        gravity: Whether it spoils the training, or only may.
        title: Its name, in a few words.
        text: What is known about it.
        advice: What to do about it.
        order: The kind of the order that may help; empty if none does.
    """

    gravity: Gravity
    title: str
    text: str
    advice: str
    order: str = ""


def troubles_of(facts: Facts) -> list[Trouble]:
    """Return everything that is wrong with a session, most severe first."""
    found = [*_of_state(facts), *_of_ranks(facts)]
    if facts.status.state in {"active", "silent"}:
        found += [
            *_of_metrics(facts),
            *_of_rates(facts),
            *_of_plan(facts),
            *_of_orders(facts),
            *_noticed(facts.session),
        ]
    return sorted(found, key=lambda each: each.gravity != "bad")


def diverging(name: str, values: list[float]) -> Iterator[Trouble]:
    """Return a trouble if a loss has gone up again; `values` are its newest ones, in order."""
    known = [each for each in values if isfinite(each)]
    if len(known) < 10:
        return
    best, first, last = min(known), known[0], sorted(known[-3:])[1]
    spread = max(first - best, abs(best) * 1e-6)
    if last - best > DIVERGED * spread or (last > first and last - best > 0.5 * spread):
        yield Trouble(
            "bad",
            "The loss goes up",
            f"{name} is {wording.rate(last)}; it was {wording.rate(best)} at best.",
            "Halve the learning rate, or go back to a checkpoint from before.",
            "scale",
        )


def _of_state(facts: Facts) -> Iterator[Trouble]:
    ended = facts.session.control.ended
    if facts.state == "failed" and ended is not None:
        why = f": {ended.reason}" if ended.reason else ""
        yield Trouble(
            "bad",
            "The training has failed",
            f"It ended before step {ended.step:,}{why}",
            "Restart it from a checkpoint: a new attempt goes on by the same plan.",
        )
    if facts.state == "silent":
        yield Trouble(
            "bad",
            "Nothing is heard of it",
            f"It was heard {wording.age(facts.heard)}, at step {wording.count(facts.trained)}.",
            "See whether the job still runs and reaches this service.",
        )


def _of_ranks(facts: Facts) -> Iterator[Trouble]:
    expected, ranks = facts.session.spec.ranks, facts.ranks
    if facts.deviating:
        yield Trouble(
            "bad",
            "Ranks train with other values",
            f"{facts.deviating:,} of {expected:,} ranks apply other values than were sealed.",
            "Something else writes into their optimizers: a second scheduler, most often.",
        )
    if facts.state != "running":
        return
    if ranks.stale:
        yield Trouble(
            "warn",
            "Ranks are silent",
            f"{ranks.stale:,} of {ranks.seen:,} ranks were not heard for a minute.",
            "See on the page of its ranks which ones, and whether they run.",
        )
    if 0 < ranks.seen < expected:
        yield Trouble(
            "warn",
            "Ranks are missing",
            f"{expected:,} ranks are expected, and {ranks.seen:,} were heard.",
            "See whether all have started; `ranks` of the spec says how many there are to be.",
        )


def _of_metrics(facts: Facts) -> Iterator[Trouble]:
    for name, found in facts.status.metrics.items():
        if not isfinite(found.value):
            yield Trouble(
                "bad",
                f"{name} is {found.value}",
                f"So it was reported at step {found.step:,}.",
                "Go back to a checkpoint from before, with a smaller rate.",
                "scale",
            )


def _of_rates(facts: Facts) -> Iterator[Trouble]:
    step, total = facts.trained, facts.total
    if step is None or (total is not None and step >= total - 1):
        return
    warming = step <= facts.session.spec.start_step + 1
    least = facts.session.spec.limits.min_lr
    for name, value in facts.lr.items():
        if value == 0 and not warming:
            yield Trouble(
                "warn",
                f"{name} is 0",
                "Nothing is learnt at that rate.",
                "Set another rate, or go back to the plan.",
                "set",
            )
        elif value is not None and 0 < value <= least:
            yield Trouble(
                "warn",
                f"{name} is at its floor",
                f"It is {wording.rate(value)}, and the limits allow no less.",
                "End the training, or set other limits.",
                "limit",
            )


def _of_plan(facts: Facts) -> Iterator[Trouble]:
    over = plan_end(facts.session)
    if over is not None and facts.trained is not None and facts.trained > over:
        yield Trouble(
            "warn",
            "The plan is over",
            f"It ended at step {over:,}, and the training is at step {facts.trained:,}.",
            "Replace the schedule by one that goes on, or end the training.",
            "replace",
        )


def _of_orders(facts: Facts) -> Iterator[Trouble]:
    for order in facts.session.orders.waiting:
        seconds = facts.until(order.at)
        steps = order.at - (facts.trained or facts.session.spec.start_step)
        far = steps > FAR_STEPS if seconds is None else seconds > FAR_SECONDS
        if far:
            when = f"in about {wording.duration(seconds)}" if seconds else f"in {steps:,} steps"
            yield Trouble(
                "warn",
                "An order is far away",
                f"Order {order.id} ({order.action.cause()}) holds from step {order.at:,}, {when}.",
                "If it was meant for now, cancel it and give it without a step.",
            )


def _noticed(session: Session) -> Iterator[Trouble]:
    told = {(code, at): about for code, about, at in session.control.watch.told}
    for notice in session.control.notices:
        about = told.get((notice.code, notice.step))
        if about is None or notice.code not in ADVICE:
            continue
        sighting = session.control.watch.seen.get(about)
        if notice.code in ABOUT_METRICS and sighting and sighting.step >= notice.step:
            continue
        title = notice.code.replace("_", " ").capitalize()
        yield Trouble("warn", f"{title}: {about}", notice.message, ADVICE[notice.code])
