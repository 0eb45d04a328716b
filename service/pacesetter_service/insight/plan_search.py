"""The candidates of a plan if the caller names none: cooldowns, and plans of another length."""

from collections.abc import Callable, Iterator

from pacesetter_service.core.actions.clock import Retime
from pacesetter_service.core.actions.level import Cooldown
from pacesetter_service.core.schedules.eases import AnyEase, Linear, Power
from pacesetter_service.core.watching import plan_end
from pacesetter_service.insight.planner import Candidate, Outlook, Planned, Planner, ranked
from pacesetter_service.insight.remainder import best_remainder

SPANS = (1.0, 0.6, 0.35, 0.2, 0.1)
"""The fractions of the remaining steps that a cooldown may take."""

FLOORS = (0.0, 0.1)
"""The fractions of the present rate that a cooldown may end at."""

EASES: tuple[tuple[str, AnyEase], ...] = (
    ("linear", Linear()),
    ("1-sqrt", Power(power=0.5)),
)

REFINED = 3
"""How many lengths near that of the best cooldown are tried as well."""

HALVINGS = 12
"""How often the range of steps is halved in the search for the fewest."""

SHOWN = 8
"""How many of the searched candidates are returned."""


def as_planned(total: int) -> Candidate:
    """Return the candidate that orders nothing."""
    return Candidate("as planned", (), total)


def cooldown(
    planner: Planner, total: int, span: float, shape: str, ease: AnyEase, floor: float
) -> Candidate:
    """Return a cooldown that ends with the training."""
    horizon = planner.session.horizon
    steps = min(max(round((total - horizon) * span), 1), total - horizon)
    least = planner.session.control.limits.min_lr
    floors = {"to": least} if least > 0 and floor == 0 else {"to_fraction": floor}
    to = f"{least:.4g}" if "to" in floors else "0" if floor == 0 else f"{floor:.0%} of the rate"
    return Candidate(
        f"cool down over {steps} steps to {to}, {shape}",
        (Planned(total - steps, Cooldown(until=total, ease=ease, **floors)),),
        total,
    )


def lowest(planner: Planner, total: int) -> list[Outlook]:
    """Return the expectations of the best ways to finish, the best first."""
    planned = planner.outlook(as_planned(total))
    found = [planned, *map(planner.outlook, _retimed(planner, total))]
    tried = {
        (span, shape, floor): planner.outlook(cooldown(planner, total, span, shape, ease, floor))
        for shape, ease in EASES
        for floor in FLOORS
        for span in SPANS
    }
    tried |= _refined(planner, total, tried)
    remainder = best_remainder(planner, total)
    if remainder is not None:
        found.append(planner.outlook(remainder))
    # Of cooldowns that differ only in length, the best two are enough.
    families: dict[tuple[str, float], list[Outlook]] = {}
    for (_, shape, floor), outlook in tried.items():
        families.setdefault((shape, floor), []).append(outlook)
    for family in families.values():
        found += ranked(family)[:2]
    best = [each for each in ranked(found) if each is not planned and each.refused is None]
    return [*best[: SHOWN - 1], planned]


Tried = dict[tuple[float, str, float], Outlook]


def _refined(planner: Planner, total: int, tried: Tried) -> Tried:
    """Refine the length of the best cooldown."""
    best = min(tried, key=lambda key: tried[key].end)
    _, shape, floor = best
    ease = dict(EASES)[shape]
    spans = sorted(SPANS)
    place = spans.index(best[0])
    low, high = spans[max(place - 1, 0)], spans[min(place + 1, len(spans) - 1)]
    more: Tried = {}
    for part in range(1, REFINED + 1):
        span = low + (high - low) * part / (REFINED + 1)
        if abs(span - best[0]) > 0.02:
            more[span, shape, floor] = planner.outlook(
                cooldown(planner, total, span, shape, ease, floor)
            )
    return more


def _retimed(planner: Planner, total: int) -> Iterator[Candidate]:
    """Return ways to make the present plan end with the training, if it ends elsewhere."""
    end, horizon = plan_end(planner.session), planner.session.horizon
    if end is None or end == total or end <= horizon:
        return
    yield Candidate(
        f"retime the plan to {total}", (Planned(horizon, Retime(total_steps=total)),), total
    )
    if total > end:
        kept = Retime(total_steps=total, policy="keep_then_tail")
        label = f"keep the rate, then the rest of the plan up to {total}"
        yield Candidate(label, (Planned(horizon, kept),), total)


def fewest(planner: Planner, loss: float, most: int) -> list[Outlook]:
    """Return the cooldowns that reach a loss soonest, the soonest first; none if none does."""
    found = []
    for shape, ease in EASES:
        for span in SPANS:

            def at(
                total: int, span: float = span, shape: str = shape, ease: AnyEase = ease
            ) -> Candidate:
                return cooldown(planner, total, span, shape, ease, 0.0)

            total = _soonest(planner, at, loss, most)
            if total is not None:
                found.append(planner.outlook(at(total)))
    return sorted(found, key=lambda each: (each.candidate.total, each.end))[:SHOWN]


def _soonest(
    planner: Planner, at: Callable[[int], Candidate], loss: float, most: int
) -> int | None:
    """Return the earliest end, to within 1 part in 4,000, at which a loss is reached."""
    low, high = planner.session.horizon + 1, most
    if planner.end_of(at(high)) > loss:
        return None
    for _ in range(HALVINGS):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        if planner.end_of(at(middle)) <= loss:
            high = middle
        else:
            low = middle
    return high
