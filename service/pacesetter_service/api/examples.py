"""Examples of bodies, for readers of the API's description and for trying it out."""

from collections.abc import Mapping
from typing import Any

_COSINE = {"kind": "warmup_cosine", "warmup_steps": 500, "total_steps": 10_000}
_SPEC = {"base_lr": 0.1, "schedule": _COSINE, "total_steps": 10_000}

EXAMPLES: Mapping[str, dict[str, Any]] = {
    "NewSession": {"name": "vit-base", **_SPEC, "labels": {"team": "vision"}},
    "NewSessionFromTemplate": {"name": "vit-base", "template": "vit@1", "with": {"lr": 0.1}},
    "SyncRequest": {
        "attempt": 1,
        "reports": [{"step": 99, "metrics": {"loss": 0.5}}],
        "want": {"start": 100, "count": 50},
        "progress": {"step": 100, "seconds_per_step": 0.2},
    },
    "FinishRequest": {"outcome": "completed", "reason": "all epochs are done"},
    "LabelsRequest": {"labels": {"team": "vision", "old": None}},
    "PurgeRequest": {"dry_run": True},
    "PruneRequest": {"older_than": 2_592_000, "states": ["finished"], "dry_run": True},
    "AttemptRequest": {"step": 5_000, "key": "job-17-restart-1"},
    "ForkRequest": {"name": "vit-longer", "step": 5_000, "description": {"total_steps": 20_000}},
    "TakeBackRequest": {"reason": "the rate is to change sooner", "dry_run": True},
    "PreviewRequest": {**_SPEC, "count": 10_000, "points": 500},
    "LintRequest": {**_SPEC, "planned_steps": 10_000, "architecture": "transformer"},
    "Situation": {"architecture": "transformer", "total_steps": 10_000, "batch_size": 256},
    "Template": {
        "name": "vit",
        "description": "A warmup and a cosine, as we train vision transformers.",
        "parameters": {"lr": {"description": "the peak", "default": 0.1}},
        "spec": {"base_lr": {"$": "lr"}, "schedule": _COSINE},
    },
    "Deprecation": {"reason": "Use version 2: its warmup is longer."},
    "TokenRequest": {"name": "ci", "role": "trainer", "expires_in_days": 90, "scope": ["vit-*"]},
    "Problem": {
        "type": "urn:pacesetter:problem:validation_failed",
        "title": "Validation failed",
        "status": 422,
        "code": "validation_failed",
        "detail": "The request is not valid. /base_lr: Write a number, not a text.",
        "errors": [{"pointer": "/base_lr", "detail": "Write a number, not a text"}],
    },
    "SealedWindow": {
        "attempt": 1,
        "horizon": 103,
        "revision": 0,
        "notices": [],
        "max_lookahead": None,
        "epoch": "8b2c894be9d4fae2",
        "start": 100,
        "series": {"lr": [0.0202, 0.0204, 0.0206]},
    },
}
"""Examples by the name of the model."""

OF_FIELDS: Mapping[str, Any] = {
    "beta": 0.9,
    "count": 3,
    "decay_ease": "cosine",
    "ease": "cosine",
    "levels": [0.1, 0.01],
    "lr": [0.1, 0.05],
    "moms": [0.95, 0.85, 0.95],
    "power": 2.0,
    "ratio": 0.1,
    "smoothing": {"kind": "ema", "beta": 0.98},
    "stable": {"fraction": 0.8},
    "start": 100,
    "warmup_ease": "linear",
    "window": 5,
}
"""Examples of fields of kinds, by name, for fields that no example of their kind shows."""
