"""Trainings over HTTP whose loss follows the law behind plans."""

from typing import Any

import httpx
import numpy as np

from pacesetter_service.insight.loss_law import LossLaw, Path

LAW = LossLaw(2.7, 9.0, 0.4, 0.22, 0.03, 0.4, 0.5)
TOTAL, SEEN, PROBE = 2400, 1200, 120

SPEC: dict[str, Any] = {
    "base_lr": 1e-3,
    "schedule": {"kind": "warmup", "steps": 20, "schedule": {"kind": "constant"}},
    "total_steps": TOTAL,
}


def train(http: httpx.Client, name: str, until: int, rates: list[float]) -> list[float]:
    """Train a session up to a step with a loss that follows the law; return all its rates."""
    rates, path = list(rates), f"/v1/sessions/{name}/sync"
    reports: list[dict[str, Any]] = []
    while len(rates) < until:
        start = len(rates)
        want = {"start": start, "count": min(64, until - start)}
        answer = http.post(
            path, json={"want": want, "reports": reports, "progress": {"step": start}}
        )
        assert answer.status_code == 200, answer.text
        rates += answer.json()["series"]["lr"]
        steps = np.arange(start - start % 5 + 5, len(rates), 5)
        losses = Path(np.array(rates)).losses(LAW, np.maximum(steps, 21))
        reports = [
            {"step": step, "metrics": {"loss": loss, "accuracy": 1 / loss}}
            for step, loss in zip(steps.tolist(), losses.tolist(), strict=True)
        ]
    last = {"progress": {"step": until - 1}, "want": {"start": until - 1, "count": 1}}
    assert http.post(path, json={"reports": reports, **last}).status_code == 200
    return rates
