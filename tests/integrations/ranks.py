"""What single ranks do in the tests of listeners; see `distributed.launch`."""

from typing import Any

from distributed.scenarios import sgd
from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR

STEPS = 20


def listen(rank: int, url: str, name: str, reports: str) -> list[Any]:
    """Train with a listener on every rank, and return what it heard."""
    heard: list[Any] = []
    with Client(url, max_wait=20.0, retry_for=20.0) as client:
        session = open_session(client, name)
        session.on_report(lambda step, values: heard.append((step, values)))
        scheduler = RemoteLR(sgd(0.1), session, metric="loss", reports=reports)
        for step in range(STEPS):
            scheduler.step(float(step + rank))
        scheduler.flush()
    return heard
