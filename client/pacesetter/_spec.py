"""The description of a session: what `POST /v1/sessions` takes, as keywords."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from pacesetter._plain import plain


class Description(TypedDict, total=False):
    """What a session can be described by; what is left out gets the server's default.

    Attributes:
        schedule: The law as data, for instance `{"kind": "cosine", "total_steps": 1000}`;
            constant when left out.
        base_lr: What the schedule scales.
        groups: In place of `base_lr`: for each param group `{"base_lr": ..., "schedule": ...}`.
        controllers: Closed-loop rules, for instance `{"kind": "plateau", "metric": "loss"}`.
        metrics: How the reports of ranks become what controllers see, for instance
            `{"loss": {"aggregate": "median", "quorum": 6}}`.
        limits: What no controller and no operator may overstep: `min_lr`, `max_lr`, `max_change`.
        reaction: The exact steps at which controllers decide, such as `{"decide_every": 100}`.
        ranks: How many processes report.
        max_lookahead: The most steps that are sealed ahead.
        total_steps: How long the training is.
        after_end: What follows `total_steps`, or the length that the schedule states: `"hold"`
            keeps the last rate, `"law"` follows the schedule, which may rise again.
        silent_after: The number of steps without a measurement of what a controller watches after
            which the trainer is told.
        steps_per_epoch: Converts lengths in epochs to steps; likewise `batch_size` for samples and
            `tokens_per_step` for tokens.
        batch_size: Samples per step.
        tokens_per_step: Tokens per step.
        batch_scaling: What a restart with another batch size does to the rate: `"none"`,
            `"linear"`, `"sqrt"`, or `"refuse"`.
        template: In place of a description: a published one, such as `"vit-pretrain@3"`.
        parameters: The values for the template's parameters.
        start_step: The first step.
        labels: For finding the session again.
    """

    schedule: Mapping[str, Any] | None
    base_lr: float | None
    groups: Mapping[str, Mapping[str, Any]] | None
    controllers: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Any]] | None
    limits: Mapping[str, Any] | None
    reaction: Mapping[str, Any] | None
    ranks: int
    max_lookahead: int | None
    total_steps: int | None
    after_end: str | None
    silent_after: int | Mapping[str, float] | None
    steps_per_epoch: int | None
    batch_size: int | None
    tokens_per_step: int | None
    batch_scaling: str | None
    template: str | None
    parameters: Mapping[str, Any] | None
    start_step: int
    labels: Mapping[str, str] | None


def session_body(name: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON for `POST /v1/sessions`: only what was given.

    Raises:
        TypeError: Some of the keywords do not describe a session.
    """
    unknown = sorted(set(description) - set(Description.__annotations__))
    if unknown:
        known = ", ".join(sorted(Description.__annotations__))
        raise TypeError(f"a session has no {', '.join(unknown)}: it is described by {known}")
    given = plain({key: value for key, value in description.items() if value is not None})
    if given.get("base_lr") == "optimizer":
        raise TypeError(
            'base_lr="optimizer" needs the optimizer, which a session does not see: call '
            f'RemoteLR.create(optimizer, {name!r}, base_lr="optimizer", ...)'
        )
    if "parameters" in given:
        given["with"] = given.pop("parameters")
    if isinstance(given.get("controllers"), Mapping | str):
        raise TypeError('controllers= is a list: write controllers=[{"kind": ..., "metric": ...}]')
    if "controllers" in given:
        given["controllers"] = list(given["controllers"])
    return {"name": name, **given}


def differences(given: object, stored: object, at: str = "") -> list[str]:
    """Return where a description has another value than the one that the server stores.

    The server adds what is left out, so only what both state is compared.
    """
    if isinstance(given, Mapping) and isinstance(stored, Mapping):
        pairs = [
            (f"{at}.{key}" if at else key, given[key], stored[key])
            for key in given
            if key in stored
        ]
    elif isinstance(given, list | tuple) and isinstance(stored, list) and len(given) == len(stored):
        pairs = [
            (f"{at}[{index}]", *both) for index, both in enumerate(zip(given, stored, strict=True))
        ]
    else:
        return [] if given == stored else [f"{at} ({_short(given)} here, {_short(stored)} there)"]
    return [each for path, ours, theirs in pairs for each in differences(ours, theirs, path)]


def _short(value: object) -> str:
    return reprlib.repr(value)
