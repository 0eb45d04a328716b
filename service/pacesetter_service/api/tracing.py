"""A span for each call, sent to a collector by OpenTelemetry, if that is wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from starlette.types import ASGIApp

from pacesetter_service import __version__
from pacesetter_service.api.access import name_in, route_of
from pacesetter_service.api.traffic import OTHER
from pacesetter_service.runtime.threads import started

FLUSH_SECONDS = 2.0
"""Seconds that the end waits for spans that were not sent yet."""

MISSING = (
    "tracing needs OpenTelemetry: pip install 'pacesetter[service,otel]', or drop --tracing and"
    " PACESETTER_TRACING"
)


class TracingMissingError(Exception):
    """Tracing is on, but OpenTelemetry is not installed."""


@contextmanager
def traced(app: ASGIApp) -> Iterator[ASGIApp]:
    """Return an app whose calls have spans; those not sent yet are sent when the block ends.

    A span continues the trace that its caller names in W3C's `traceparent`. OpenTelemetry's own
    variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_TRACES_SAMPLER`, say where spans go,
    and how many.

    Raises:
        TracingMissingError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415
        from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TracingMissingError(MISSING) from error
    named = Resource({"service.name": "pacesetter", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    span_of: Callable[..., Any] = _named
    try:
        yield OpenTelemetryMiddleware(
            app,
            default_span_details=span_of,
            exclude_spans=["receive", "send"],
            tracer_provider=provider,
            meter_provider=NoOpMeterProvider(),  # metrics are in /metrics
        )
    finally:
        # A collector that is away would delay the end for half a minute.
        flushing = Thread(target=provider.shutdown, daemon=True)
        if started(flushing):
            flushing.join(FLUSH_SECONDS)


def _named(scope: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a span's name, of which there is a bounded number, and its attributes."""
    route = route_of(scope["method"], scope["path"])
    if route is None:
        return OTHER, {}
    told = {"http.route": route, "http.request.method": scope["method"]}
    name = name_in(scope["path"])
    if name is not None:
        told["pacesetter.session"] = name
    return f"{scope['method']} {route}", told
