"""What a monitoring system asks for, in Prometheus' text format."""

from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pacesetter_service.api.context import Service
from pacesetter_service.fleet import Fleet
from pacesetter_service.ledger import Ledger

TEXT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


class Gauges(Collector):
    """What the service knows of its ranks and of itself at the moment of asking.

    No session has a line of its own: there may be as many as there are trainings.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give the gauges."""
        ranks, deviating = self._fleet.census()
        yield GaugeMetricFamily(
            "pacesetter_ranks", "Ranks heard of in the last ten minutes.", ranks
        )
        yield GaugeMetricFamily(
            "pacesetter_deviating_ranks",
            "Those of them that train with other values than were sealed.",
            deviating,
        )
        yield GaugeMetricFamily(
            "pacesetter_ledger_queued", "Jobs that wait for the writer.", self._ledger.queued
        )


def registry(fleet: Fleet, ledger: Ledger) -> CollectorRegistry:
    """Give what is measured: this service's own registry, so that two in a process are two."""
    found = CollectorRegistry()
    found.register(Gauges(fleet, ledger))
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    return found


@router.get("/metrics", response_class=Response)
async def read_metrics(service: Service) -> Response:
    """Give the figures in Prometheus' text format.

    Alert on `pacesetter_deviating_ranks > 0`: a rank trains with another learning rate than the
    others, and nothing in its loss may ever show it. The log of the service names the session.
    """
    text = await run_in_threadpool(generate_latest, service.metrics)
    return Response(text, media_type=TEXT)
