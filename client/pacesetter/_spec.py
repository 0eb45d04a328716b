"""The body that creates a session: only what was given, so that the server's defaults hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def session_body(
    name: str,
    *,
    schedule: Mapping[str, Any] | None = None,
    base_lr: float | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    controllers: Sequence[Mapping[str, Any]] = (),
    ranks: int = 1,
    max_lookahead: int | None = None,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    tokens_per_step: int | None = None,
    template: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    start_step: int = 0,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON of `POST /v1/sessions`."""
    given = {
        "schedule": schedule,
        "base_lr": base_lr,
        "groups": groups,
        "controllers": list(controllers) or None,
        "ranks": ranks if ranks != 1 else None,
        "max_lookahead": max_lookahead,
        "total_steps": total_steps,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "tokens_per_step": tokens_per_step,
        "template": template,
        "with": parameters,
        "start_step": start_step or None,
        "labels": labels,
    }
    return {"name": name, **{key: value for key, value in given.items() if value is not None}}
