"""LambdaLR, whose law is a Python function: those of Hugging Face's `get_*_schedule` are known.

transformers is not imported: its functions are recognised by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._law import Law
from pacesetter._from_torch._numbers import above_zero, number, whole
from pacesetter._from_torch._simple import base_of
from pacesetter._groups import ParamGroup

# ruff: noqa: ANN401 - any scheduler of torch's

HOME = "transformers.optimization"


def lambda_(scheduler: Any, _group: ParamGroup, at: int, now: int) -> Law:
    """Return the law of LambdaLR, which writes its value whatever the optimizer holds."""
    base, function = base_of(scheduler, at), scheduler.lr_lambdas[at]
    schedule = _of_hugging_face(function, base)
    if schedule is None:
        raise UnsupportedSchedulerError(
            f"LambdaLR cannot be taken over: its law is {_called(function)}, a Python function, "
            "which is no data. Create the session with the same law as an `expression` of the step "
            't, such as {"kind": "expression", "value": "base * 0.95 ** t"}'
        )
    return Law(base, schedule, base * float(function(now)))


def multiplicative(_scheduler: Any, _group: ParamGroup, _at: int, _now: int) -> Law:
    """Refuse MultiplicativeLR."""
    raise UnsupportedSchedulerError(
        "MultiplicativeLR cannot be taken over: its law is a Python function, which is no data. "
        "Create the session with the product of all factors up to the step t as an `expression`, "
        'such as {"kind": "expression", "value": "base * 0.95 ** t"}'
    )


def _called(function: Any) -> str:
    inner = getattr(function, "func", function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', '?')}.{name}"


def _of_hugging_face(function: Any, base: float) -> dict[str, Any] | None:
    """Return the `hf.*` schedule of a function that transformers has made; None for any other."""
    inner = getattr(function, "func", function)
    if getattr(inner, "__module__", None) != HOME:
        return None
    given: Mapping[str, Any] = getattr(function, "keywords", {})
    name = str(inner.__name__)
    kind = _KINDS.get(name)
    if name.startswith("_get_cosine_schedule") and "min_lr_rate" in given:
        kind = "cosine_with_min_lr"
    if kind is None:
        raise UnsupportedSchedulerError(
            f"LambdaLR by transformers' {name} is not known: create the session with the "
            "`hf.*` schedule that has the name of your lr_scheduler_type, such as hf.cosine"
        )
    schedule = {each: check(given[each], each) for each, check in _CHECKS.items() if each in given}
    if kind == "polynomial":
        # transformers' end is stated for the optimizer's default rate; a group with another rate
        # ends at the same fraction of its own.
        end, of = schedule["lr_end"], float(given["lr_init"])
        schedule["lr_end"] = end if base == of else end / of * base
    if schedule.get("warmup_lr_rate", 0.0) is None:
        del schedule["warmup_lr_rate"]
    return {"kind": f"hf.{kind}", **schedule}


def _as_it_is(value: Any, _what: str) -> Any:
    return value


def _number_or_none(value: Any, what: str) -> float | None:
    return None if value is None else number(value, what)


_KINDS = {
    "_get_constant_lambda": "constant",
    "_get_constant_schedule_with_warmup_lr_lambda": "constant_with_warmup",
    "_get_cosine_schedule_with_warmup_lr_lambda": "cosine",
    "_get_cosine_with_hard_restarts_schedule_with_warmup_lr_lambda": "cosine_with_restarts",
    "_get_cosine_with_min_lr_schedule_with_warmup_lr_rate_lambda": "cosine_warmup_with_min_lr",
    "_get_inverse_sqrt_schedule_lr_lambda": "inverse_sqrt",
    "_get_linear_schedule_with_warmup_lr_lambda": "linear",
    "_get_polynomial_decay_schedule_with_warmup_lr_lambda": "polynomial",
    "_get_wsd_scheduler_lambda": "warmup_stable_decay",
}
"""The kind of each function of transformers."""

_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "decay_type": _as_it_is,
    "lr_end": number,
    "min_lr_rate": number,
    "min_lr_ratio": number,
    "num_cycles": above_zero,
    "num_decay_steps": whole,
    "num_stable_steps": whole,
    "num_training_steps": partial(whole, least=1),
    "num_warmup_steps": whole,
    "power": above_zero,
    "timescale": above_zero,
    "warmup_lr_rate": _number_or_none,
    "warmup_type": _as_it_is,
}
"""How each of their arguments is checked that a kind of ours has under the same name."""
