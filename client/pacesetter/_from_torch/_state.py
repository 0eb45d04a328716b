"""What a session can take over from a scheduler's saved state: a step, or nothing.

A session has its own law. So all that matters in a torch state that belongs to the same law is the
step. A state that says more than that (what a plateau has seen, rates that a user has scaled,
another law) is refused, and never half used.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pacesetter._errors import StateMismatchError, UnsupportedSchedulerError
from pacesetter._from_torch import _plateau
from pacesetter._from_torch._convert import law_of
from pacesetter._from_torch._cycles import said_by_state
from pacesetter._from_torch._joined import members, position
from pacesetter._from_torch._law import Law, agrees
from pacesetter._info import SessionInfo

# ruff: noqa: ANN401, SLF001 - what stands in a state, under torch's private names

POSITION = {"attempt", "last_epoch", "revision", "_step_count", "_last_lr"}
"""Keys of a state that says where a training is, and nothing else."""

_MARKS: list[tuple[str, set[str]]] = [
    ("SequentialLR", {"_schedulers", "_milestones"}),
    ("ChainedScheduler", {"_schedulers"}),
    ("GreedyLR", {"num_bad_epochs", "num_good_epochs"}),
    ("ReduceLROnPlateau", {"num_bad_epochs", "cooldown_counter", "best"}),
    ("LambdaLR", {"lr_lambdas"}),
    ("OneCycleLR", {"_schedule_phases"}),
    ("CyclicLR", {"total_size", "step_ratio"}),
    ("SWALR", {"anneal_epochs"}),
    ("CosineAnnealingWarmRestarts", {"T_0", "T_mult"}),
    ("CosineAnnealingLR", {"T_max"}),
    ("LinearLR", {"start_factor", "end_factor"}),
    ("ConstantLR", {"factor", "total_iters"}),
    ("PolynomialLR", {"power", "total_iters"}),
    ("MultiStepLR", {"milestones"}),
    ("StepLR", {"step_size"}),
    ("ExponentialLR", {"gamma"}),
]
"""The keys by which the state of a class is recognised; the first match counts."""

_SIMPLE = {
    "constant",
    "cosine",
    "cyclic",
    "exponential",
    "linear",
    "multistep",
    "one_cycle",
    "polynomial",
    "step",
}
"""Our kinds that are each one of torch's classes; any other kind may be any law."""

_WARMED = {
    "inverse_sqrt",
    "noam",
    "noam_hold",
    "range_test",
    "rex",
    "warmup",
    "warmup_cosine",
    "wsd",
    "wsd_s",
}
"""Our kinds that no single torch class equals; several in turn may."""

_SEVERAL = {"ChainedScheduler", "SequentialLR"}
_UNSAID = {"LambdaLR", "OneCycleLR", "SWALR"}
"""Classes whose state does not say all of their law."""


def taken_over(state: Mapping[str, Any], session: SessionInfo) -> Mapping[str, Any]:
    """Return the state of a session, or of a step, that a scheduler's saved state amounts to.

    Args:
        state: The state of a `RemoteLR`, which is returned as it is, or of another scheduler.
        session: The session that will go on.

    Raises:
        StateMismatchError: It says more than a step, or belongs to another law.
    """
    if not isinstance(state, Mapping):
        raise StateMismatchError(
            f"the state is a {type(state).__name__}: load the state_dict of this scheduler, or one "
            "of torch's"
        )
    if "session" in state or {"last_epoch"} <= set(state) <= POSITION:
        return state
    name = _class_of(state)
    if name in {"ReduceLROnPlateau", "GreedyLR"}:
        return _seen(name, state, session)
    scheduler = _revived(name, state)
    with _refusing(name):
        step = position(scheduler)
        _refuse_other_parts(scheduler, step)
        if name not in _UNSAID:
            _refuse_other_rates(scheduler, step, state)
        _refuse_other_law(name, scheduler, step, session)
        _refuse_other_bases(name, scheduler, step, session)
    count = state.get("_step_count", step + 1)
    return {"last_epoch": step, "_step_count": count}


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn what is wrong with a class's state into a refusal of it."""
    try:
        yield
    except (UnsupportedSchedulerError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StateMismatchError(
            f"the state is one of torch's {name}, and cannot be taken over: {error}"
        ) from error


def _class_of(state: Mapping[str, Any]) -> str:
    name = next((name for name, marks in _MARKS if marks <= set(state)), None)
    if name is None:
        raise StateMismatchError(
            f"the state with the keys {', '.join(sorted(map(str, state))) or '(none)'} is of no "
            f"scheduler that is known here, last_epoch={state.get('last_epoch')!r}: load the "
            f"state_dict of this scheduler, or one of torch's. {_only_the_step('n')}"
        )
    return name


def _only_the_step(step: object) -> str:
    return (
        f'To go to a step and leave the rest of the state, load {{"last_epoch": {step}}} instead '
        "(a Hugging Face Trainer does so by itself where its checkpoint has no scheduler.pt)"
    )


def _revived(name: str, state: Mapping[str, Any]) -> Any:
    """Return something with the attributes of the scheduler whose state it is."""
    kind = type(name, (), {"__module__": "torch.optim.lr_scheduler"})
    scheduler = kind()
    vars(scheduler).update(state)
    if "_schedulers" in state:
        parts = state["_schedulers"]
        scheduler._schedulers = [_revived(_class_of(part), part) for part in parts]
    return scheduler


def _leaves(scheduler: Any) -> Iterator[Any]:
    for member in members(scheduler):
        if type(member).__name__ == "SequentialLR":
            for part in member._schedulers:
                yield from _leaves(part)
        else:
            yield member


def _refuse_other_parts(scheduler: Any, step: int) -> None:
    """Refuse a SequentialLR whose part under way is at another step than the whole."""
    for member in members(scheduler):
        if type(member).__name__ != "SequentialLR":
            continue
        index = bisect_right(member._milestones, step)
        start = max(member._milestones[index - 1], 0) if index else 0
        reached = position(member._schedulers[index])
        if reached != step - start:
            raise UnsupportedSchedulerError(
                f"it is at step {step}, and its part that began at step {start} at step {reached}"
            )


def _laws(scheduler: Any, step: int, rates: list[float]) -> list[Law]:
    groups = [{"lr": rate, "swa_lr": rate} for rate in rates]
    return [law_of(scheduler, group, at, step) for at, group in enumerate(groups)]


def _refuse_other_rates(scheduler: Any, step: int, state: Mapping[str, Any]) -> None:
    """Refuse a state whose last rates are not those of its own law: they were scaled."""
    if type(scheduler).__name__ == "SequentialLR" or "_last_lr" not in state:
        return
    rates = state["_last_lr"]
    for law, rate in zip(_laws(scheduler, step, list(map(float, rates))), rates, strict=True):
        if not agrees(law, rate):
            raise UnsupportedSchedulerError(
                f"its last learning rate is {float(rate)!r} where its own law says {law.value!r}, "
                f"so something else has changed it. {_CONVERT}"
            )


_CONVERT = (
    "To go on from its rates, load it and the optimizer's state into torch's own, and give that to "
    "RemoteLR.from_torch"
)


def _refuse_other_law(name: str, scheduler: Any, step: int, session: SessionInfo) -> None:
    """Refuse a state whose law differs from the session's, where that can be seen."""
    for schedule in _schedules(session):
        kind = str(schedule.get("kind", "constant"))
        if name not in _SEVERAL and kind in {_kind_of(name, scheduler, step), f"torch.{name}"}:
            _refuse_other_arguments(_says(name, scheduler, step), schedule, step)
            if name == "OneCycleLR":
                _refuse_other_start(scheduler, schedule, step)
        elif kind != f"torch.{name}" and _is_none_of(name, kind):
            raise _other(f"the session's law is `{kind}`, which is no {name}", step)


def _schedules(session: SessionInfo) -> Iterator[Mapping[str, Any]]:
    """Return the laws of a session's learning rates, each once."""
    shared = session.spec.get("schedule")
    groups = (session.spec.get("groups") or {"": {}}).values()
    given: list[Mapping[str, Any]] = []
    for group in groups:
        schedule = group.get("schedule") or shared or {}
        if schedule.get("kind") == "channels":
            schedule = schedule["laws"].get("lr") or {}
        if schedule not in given:
            given.append(schedule)
            yield schedule


def _is_none_of(name: str, kind: str) -> bool:
    """Return whether a kind is not the law of a class; an unknown kind may be any law."""
    if kind in _SIMPLE or kind.startswith("torch."):
        return True
    if name in {"LambdaLR", *_SEVERAL}:
        return False
    return kind in _WARMED or kind.startswith("hf.")


def _kind_of(name: str, scheduler: Any, step: int) -> str:
    """Return our kind for a class; none for LambdaLR, whose law is any function."""
    if name in _UNSAID:
        return "one_cycle" if name == "OneCycleLR" else ""
    return str(_laws(scheduler, step, [0.0])[0].schedule["kind"])


def _says(name: str, scheduler: Any, step: int) -> dict[str, Any]:
    """Return the arguments that a state says, by torch's names and by ours."""
    if name == "OneCycleLR":
        return said_by_state(scheduler)
    if name == "SWALR":
        strategy = scheduler._anneal_strategy
        return {"anneal_epochs": scheduler.anneal_epochs, "anneal_strategy": strategy}
    (law, *_) = _laws(scheduler, step, [0.0])
    return {**vars(scheduler), **law.schedule}


def _refuse_other_arguments(
    says: Mapping[str, Any], schedule: Mapping[str, Any], step: int
) -> None:
    for argument, theirs in says.items():
        if argument == "kind" or argument not in schedule or theirs is None:
            continue
        ours = schedule[argument]
        wanted = _filled(schedule, argument) if ours is None else ours
        if not _equal(theirs, wanted):
            raise _other(f"its {argument} is {theirs!r}, the session's {wanted!r}", step)


def _refuse_other_start(scheduler: Any, schedule: Mapping[str, Any], step: int) -> None:
    """Refuse a cycle from another rate; the state does not say up to which it rises."""
    starts = sorted({float(base) for base in scheduler.base_lrs})
    ours = schedule["max_lr"] / float(schedule["div_factor"])
    if not any(math.isclose(start, ours, rel_tol=1e-6) for start in starts):
        raise _other(f"it starts at {starts}, the session at {ours!r}", step)


def _other(found: str, step: int) -> UnsupportedSchedulerError:
    return UnsupportedSchedulerError(f"{found}. {_CONVERT}. {_only_the_step(step)}")


def _filled(schedule: Mapping[str, Any], argument: str) -> Any:
    """Return the value of an argument that was left out, and follows from others."""
    if argument == "step_size_down":
        return schedule["step_size_up"]
    if argument == "total_steps" and schedule.get("epochs"):
        return schedule["epochs"] * schedule["steps_per_epoch"]
    return None


def _equal(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, float) and isinstance(ours, int | float):
        return math.isclose(theirs, ours, rel_tol=1e-12)
    return bool(theirs == ours)


def _refuse_other_bases(name: str, scheduler: Any, step: int, session: SessionInfo) -> None:
    """Refuse base learning rates that the session does not have."""
    groups = session.spec.get("groups")
    ours = {session.base_lr(group) for group in groups or [None]}
    if name in {"CyclicLR", "OneCycleLR", "SequentialLR", "SWALR"} or None in ours:
        return  # they write rates of their own
    theirs = {float(base) for leaf in _leaves(scheduler) for base in leaf.base_lrs}
    if not any(math.isclose(a, b, rel_tol=1e-6) for a in theirs for b in ours if b is not None):
        raise UnsupportedSchedulerError(
            f"it is of the base learning rates {sorted(theirs)}, and the session has "
            f"{sorted(filter(None, ours))}: create the session with those of the state. "
            f"{_only_the_step(step)}"
        )


def _seen(name: str, state: Mapping[str, Any], session: SessionInfo) -> Mapping[str, Any]:
    """Return the session's first step, if it was created to go on from what this state has seen."""
    if name == "GreedyLR":
        raise StateMismatchError(
            "the state is one of transformers' GreedyLR, whose learning rates and counts no "
            "session can take over: create the session at the rates that it has come to (base_lr="
            f"{list(state.get('_last_lr', []))}), where its controller hf.GreedyLR begins anew. "
            + _only_the_step("n")
        )
    seen = _revived(name, state)
    with _refusing(name):
        rates = [float(rate) for rate in seen._last_lr]
        names = list(session.spec.get("groups") or [f"group{at}" for at in range(len(rates))])
        wanted = _plateau.controller(seen, names[: len(rates)], "")
    if _goes_on(wanted, set(rates), session) or not (state["last_epoch"] or "start" in wanted):
        return {"last_epoch": session.start_step}
    wanted["metric"] = (session.metrics or ("val_loss",))[0]
    base = f"base_lr={rates[0]!r}" if len(set(rates)) == 1 else f"groups of base_lr {rates}"
    raise StateMismatchError(
        "the state is one of torch's ReduceLROnPlateau, which says more than a step: its best "
        f"value {state['best']!r}, {state['num_bad_epochs']} bad measurements, a cooldown of "
        f"{state['cooldown_counter']}, and the learning rates {rates}. A session takes them over "
        f"when it is created: {_CONVERT[0].lower()}{_CONVERT[1:]}; or create it with {base} and "
        f"controllers=[{json.dumps(wanted)}] (keywords of Client.session and PacesetterCallback), "
        "under a name of its own"
    )


def _goes_on(wanted: dict[str, Any], rates: set[float], session: SessionInfo) -> bool:
    """Return whether a session was created with all that a state has seen, and at its rates."""
    groups = session.spec.get("groups")
    if {session.base_lr(group) for group in groups or [None]} != rates:
        return False
    blank = {"best": None, "bad": 0, "cooldown": 0}
    wanted = {**wanted, "start": {**blank, **wanted.get("start", {})}, "metric": None}
    return any(
        {**each, "start": {**blank, **(each.get("start") or {})}, "metric": None}.items()
        >= wanted.items()
        for each in session.spec.get("controllers") or ()
        if each.get("kind") == wanted["kind"]
    )
