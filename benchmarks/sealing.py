"""Having steps sealed before anything is measured: as a trainer does that takes little time."""

import json

import httpx

WINDOW = "application/vnd.pacesetter.window"

PACE = 1e-5
"""Seconds that a step takes it: so quick a trainer is given long windows."""


def take(http: httpx.Client, name: str, start: int, count: int) -> None:
    """Have a window sealed for the trainer that stands before it.

    A wish that goes too far is answered by a shorter window, and then what is measured is not what
    was meant: so this sees that all of it is there.
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
