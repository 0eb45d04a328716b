"""What a monitoring system asks for, in Prometheus' text format."""

from collections.abc import Iterable

from fastapi import APIRouter, Request
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

from pacesetter_service.runtime.queries.health import figures
from pacesetter_service.runtime.service import Service as UseCases

TEXT = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["health"])


class Gauges(Collector):
    """What the service knows of its ranks and of itself at the moment of asking.

    No session has a line of its own: there may be as many as there are trainings.
    """

    def __init__(self, service: UseCases) -> None:
        self._service = service

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges."""
        found = figures(self._service)
        yield GaugeMetricFamily(
            "pacesetter_ranks", "Ranks heard of in the last ten minutes.", found.ranks
        )
        yield GaugeMetricFamily(
            "pacesetter_deviating_ranks",
            "Those of them that train with other values than were sealed.",
            found.deviating,
        )
        yield GaugeMetricFamily(
            "pacesetter_writer_queued", "Jobs that wait for the writer.", found.queued
        )


def registry(service: UseCases) -> CollectorRegistry:
    """Return what is measured: this service's own registry, so that two in a process are two."""
    found = CollectorRegistry()
    found.register(Gauges(service))
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    return found


@router.get("/metrics", response_class=Response)
async def read_metrics(request: Request) -> Response:
    """Return the figures in Prometheus' text format.

    Alert on `pacesetter_deviating_ranks > 0`: a rank trains with another learning rate than the
    others, and nothing in its loss may ever show it. The log of the service names the session.
    """
    text = await run_in_threadpool(generate_latest, request.app.state.metrics)
    return Response(text, media_type=TEXT)
