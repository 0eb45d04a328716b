"""Sealing steps before anything is measured, as for a trainer whose steps take little time."""

import json

import httpx

WINDOW = "application/vnd.pacesetter.window"

PACE = 1e-5
"""Seconds that its step takes: so fast a trainer gets long windows."""


def take(http: httpx.Client, name: str, start: int, count: int) -> None:
    """Seal a window for the trainer before it.

    A `want` that goes too far gets a shorter window, and then the measurement is not the intended
    one: so this checks that all of it is there.
    """
    body = {
        "attempt": 1,
        "progress": {"step": start, "seconds_per_step": PACE},
        "want": {"start": start, "count": count},
    }
    path = f"/v1/sessions/{name}/sync"
    answer = http.post(path, json=body, headers={"accept": WINDOW}).raise_for_status()
    horizon = json.loads(answer.content.partition(b"\n")[0])["horizon"]
    if horizon < start + count:
        raise RuntimeError(f"{name} is sealed up to {horizon}, and not to {start + count}")
