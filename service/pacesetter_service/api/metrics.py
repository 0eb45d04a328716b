"""Metrics for a monitoring system, in Prometheus' text format.

docs/observability.md has a table of all of them.
"""

from collections.abc import Iterable, Iterator
from typing import get_args

from fastapi import APIRouter, Request
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pacesetter_service import __version__
from pacesetter_service.api.feed import Readers
from pacesetter_service.api.traffic import STATUSES as CLASSES
from pacesetter_service.api.traffic import Traffic
from pacesetter_service.core.session import Status
from pacesetter_service.runtime.histogram import Histogram
from pacesetter_service.runtime.queries.health import Figures, figures
from pacesetter_service.runtime.service import Service as UseCases

TEXT = "text/plain; version=0.0.4; charset=utf-8"

STATUSES: tuple[str, ...] = get_args(Status)
"""All statuses of sessions, so that each has its line from the start."""

router = APIRouter(tags=["health"])


class Measured(Collector):
    """What the service knows about its calls, its ranks and itself when it is asked.

    No session has a line of its own: there may be as many sessions as there are trainings. Labels
    are routes as in the code, classes of HTTP statuses, kinds of events and statuses of sessions.
    """

    def __init__(self, service: UseCases, traffic: Traffic, readers: Readers) -> None:
        self._service = service
        self._traffic = traffic
        self._readers = readers

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; this may wait for the database, for a second at most."""
        found = figures(self._service)
        yield _build()
        yield from _of_calls(self._traffic)
        yield _gauge("event_streams", "Readers of event streams.", self._readers.open)
        yield _gauge("event_streams_limit", "How many there may be.", self._readers.most)
        yield from _of_ranks(found)
        yield from _of_the_writer(found)
        yield from _of_the_database(found)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering this collector collects no figures."""
        return ()


def _build() -> Metric:
    built = GaugeMetricFamily(
        "pacesetter_build_info", "1, with the version that runs.", labels=["version"]
    )
    built.add_metric([__version__], 1)
    return built


def _of_calls(traffic: Traffic) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "pacesetter_http_requests",
        "Calls, by the class of their status; 503 is its own, none: the caller went before.",
        labels=["method", "route", "status"],
    )
    seconds = HistogramMetricFamily(
        "pacesetter_http_request_duration_seconds",
        "How long calls took until their answers began.",
        labels=["method", "route"],
    )
    for (method, route), calls in traffic.calls.items():
        for status, count in zip(CLASSES, calls.statuses, strict=True):
            requests.add_metric([method, route, status], count)
        _add(seconds, calls.seconds, method, route)
    yield requests
    yield seconds
    yield _gauge("http_requests_in_progress", "Calls that are being answered.", traffic.open)


def _of_ranks(found: Figures) -> Iterator[Metric]:
    yield _gauge("ranks", "Ranks heard of in the last ten minutes.", found.ranks)
    yield _gauge(
        "deviating_ranks",
        "Those of them that train with other values than were sealed.",
        found.deviating,
    )
    yield _gauge(
        "silent_ranks",
        "Those of them that were not heard of for a minute, while others of their session were.",
        found.silent,
    )
    yield _gauge(
        "trained_sessions", "Sessions whose trainers were heard of within a minute.", found.trained
    )
    yield _gauge(
        "seal_ahead_steps",
        "Steps that are sealed beyond those that are trained, in all trained sessions together.",
        found.ahead,
    )
    yield _gauge("seal_ahead_max_steps", "The most of them in one session.", found.furthest)
    yield _gauge("held_calls", "Calls that wait for a measurement.", found.held)


def _of_the_writer(found: Figures) -> Iterator[Metric]:
    tally = found.tally
    yield _gauge("writer_queued", "Jobs that wait for the writer.", found.queued)
    yield _gauge(
        "writer_stalled_seconds",
        "For how long the writer has worked without finishing anything; 0 while it rests.",
        found.stalled,
    )
    yield _histogram(
        "writer_commit_duration_seconds",
        "How long transactions took that were committed.",
        tally.commit_seconds,
    )
    yield _histogram("writer_batch_jobs", "Jobs that were decided together.", tally.batch_jobs)
    yield _counter(
        "writer_commit_failures", "Transactions that the database did not take.", tally.failures
    )
    yield _counter("writer_retries", "Batches that were decided anew for that.", tally.retries)
    yield _counter(
        "writer_conflicts", "Transactions before which another writer came.", tally.conflicts
    )
    yield _counter("writer_refused", "Jobs that found the queue full.", tally.refused)
    alarms = CounterMetricFamily(
        "pacesetter_webhook_alarms", "Alarms, by what became of them.", labels=["result"]
    )
    for result, count in tally.alarms.items():
        alarms.add_metric([result], count)
    yield alarms
    events = CounterMetricFamily(
        "pacesetter_events", "Events of sessions, by their kind.", labels=["kind"]
    )
    for kind, count in tally.events.items():
        events.add_metric([kind], count)
    yield events


def _of_the_database(found: Figures) -> Iterator[Metric]:
    yield _gauge("cached_sessions", "Sessions that memory holds.", found.cached)
    sessions = GaugeMetricFamily(
        "pacesetter_sessions",
        "Sessions by their status, counted now and then; 100,000 in all at most.",
        labels=["status"],
    )
    for status in STATUSES:
        sessions.add_metric([status], found.found.sessions.get(status, 0))
    yield sessions
    extent = found.found.extent
    if extent is None:
        return
    yield _gauge("database_size_bytes", "The database, with SQLite's log.", extent.size)
    if extent.free is not None and extent.disk is not None:
        yield _gauge("database_disk_free_bytes", "What is free of its disk.", extent.free)
        yield _gauge("database_disk_size_bytes", "The whole of its disk.", extent.disk)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pacesetter_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"pacesetter_{name}", text, value)


def _histogram(name: str, text: str, values: Histogram) -> Metric:
    found = HistogramMetricFamily(f"pacesetter_{name}", text, labels=())
    _add(found, values)
    return found


def _add(family: HistogramMetricFamily, values: Histogram, *labels: str) -> None:
    family.add_metric(labels, values.buckets(), values.sum)


def registry(service: UseCases, traffic: Traffic, readers: Readers) -> CollectorRegistry:
    """Return the service's own registry, so that two services in a process are separate."""
    found = CollectorRegistry()
    found.register(Measured(service, traffic, readers))
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    return found


@router.get("/metrics", response_class=Response)
async def read_metrics(request: Request) -> Response:
    """Return the figures in Prometheus' text format.

    Alert on `pacesetter_deviating_ranks > 0`: a rank trains with another learning rate than the
    others, and its loss may never show it. The log of the service names the session.
    """
    text = await run_in_threadpool(generate_latest, request.app.state.metrics)
    return Response(text, media_type=TEXT)
