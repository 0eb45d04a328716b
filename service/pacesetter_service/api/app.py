"""The ASGI application: rules for browsers, guard, gate, routes, and errors as problems."""

import re
from collections.abc import Callable
from functools import partial
from operator import attrgetter, itemgetter
from threading import Lock
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pacesetter_service import __version__
from pacesetter_service.api import (
    actions,
    attempts,
    compare,
    events,
    explain,
    family,
    feed,
    global_feed,
    health,
    history,
    kinds,
    merge,
    metrics,
    pages,
    plan,
    problems,
    prune,
    range_test,
    ranks,
    schedules,
    sessions,
    status,
    templates,
    tokens,
    transfer,
    values,
)
from pacesetter_service.api.access import route_of
from pacesetter_service.api.auth import HOLDER, Guard
from pacesetter_service.api.browsers import Browsers, Hosts
from pacesetter_service.api.gate import Gate
from pacesetter_service.api.methods import answer_head, elsewhere
from pacesetter_service.api.openapi import completed
from pacesetter_service.api.parameters import Parameters
from pacesetter_service.api.rates import UNLIMITED, Buckets, RateLimit, Rates, address_of
from pacesetter_service.api.sync import SyncEndpoint
from pacesetter_service.api.traffic import Traffic
from pacesetter_service.catalogue.recommend import Situation
from pacesetter_service.catalogue.templates import Template, TemplateUse
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tokens import store_uses

DESCRIPTION = (
    "Pacesetter owns the learning rates of running trainings. Create a session with a schedule, "
    "ask for its values at each step, report metrics; every value handed out is final."
)


_SYNC_PATH = re.compile(r"/v1/sessions/(?P<name>[^/]+)/sync")


DESCRIBED = (
    SessionSpec,
    TemplateUse,
    Template,
    schedules.PreviewRequest,
    schedules.LintRequest,
    Situation,
    templates.Deprecation,
    actions.OrderFields,
    sessions.FirstAttempt,
    sessions.FinishRequest,
    prune.PruneRequest,
    sessions.LabelsRequest,
    sessions.PurgeRequest,
    attempts.AttemptRequest,
    attempts.ForkRequest,
    attempts.TakeBackRequest,
    tokens.TokenRequest,
    plan.PlanRequest,
    plan.ApplyRequest,
)
"""Models of the bodies that the framework does not read itself."""


_DESCRIBING = Lock()
"""Held while the document is made: callers on other threads wait for the whole document."""


class Beside(Protocol):
    """An application that answers at addresses beside the API's, behind the rules for browsers.

    It decides itself whom it lets in: it is not behind the API's guard.
    """

    def serves(self, path: str) -> bool:
        """Return whether an address is one of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""


Opened = Callable[[Service, feed.Pulse, feed.Readers], Beside]
"""Makes such an application from a service and the state that all feeds share."""


class Split:
    """ASGI middleware that hands each request to the application that serves its address."""

    def __init__(self, app: ASGIApp, beside: Beside) -> None:
        self._app = app
        self._beside = beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        mine = scope["type"] == "http" and self._beside.serves(scope["path"])
        await (self._beside if mine else self._app)(scope, receive, send)


class App(FastAPI):
    """FastAPI, with the hot endpoint in front of it, and with a description of that endpoint."""

    door: ASGIApp
    """The middleware that every request passes first."""
    hot: ASGIApp
    parameters: Parameters

    def release(self) -> None:
        """Release the held calls: the server stops."""
        service: Service = self.state.service
        service.release()

    def close(self) -> None:
        """End the threads that work for requests; call it once no request is served."""
        service: Service = self.state.service
        service.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the door."""
        await self.door(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the hot call past the framework, whose layers cost as much as the whole answer."""
        if scope["type"] == "http":
            if scope["query_string"] and (refusal := self.parameters.refusal(scope)) is not None:
                await refusal(scope, receive, send)
                return
            if scope["method"] == "POST":
                match = _SYNC_PATH.fullmatch(scope["path"])
                if match is not None:
                    scope["path_params"] = match.groupdict()
                    await self.hot(scope, receive, send)
                    return
            if route_of(scope["method"], scope["path"]) is None:  # before its body is read
                await elsewhere(scope)(scope, receive, send)
                return
            if scope["method"] == "HEAD":
                await answer_head(super().__call__, scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        with _DESCRIBING:
            if self.openapi_schema is None:
                service: Service = self.state.service
                found = completed(super().openapi(), *DESCRIBED, optional=service.keys is None)
                self.openapi_schema = found
            return self.openapi_schema


def none_beside(_path: str) -> bool:
    """Return False: there is nothing beside the API."""
    return False


def create_app(
    service: Service,
    *,
    max_body_size: int = 1_048_576,
    max_import_size: int = 1_073_741_824,
    feed_heartbeat: float = 15.0,
    feed_patience: float = 30.0,
    max_feeds: int = 1_024,
    rates: Rates = UNLIMITED,
    hosts: Hosts | None = None,
    beside: Opened | None = None,
) -> App:
    """Build the application around a service; without `hosts` it accepts only loopback names.

    The application that `beside` makes answers at its own addresses.
    """
    app = App(
        title="Pacesetter",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,  # pages.py serves it
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=attrgetter("name"),  # the names of generated clients' functions
        redirect_slashes=False,  # a redirect would name whichever host the request named
    )
    keys = service.keys
    guarded_app: ASGIApp = app.inside
    if keys is not None:
        if rates.per_token:
            buckets = Buckets(rates.per_token, rates.per_token * rates.burst)
            guarded_app = RateLimit(guarded_app, buckets, itemgetter(HOLDER), "token")
        guarded_app = Guard(guarded_app, keys, partial(store_uses, service, keys))
    app.state.pulse = feed.Pulse(feed_heartbeat, feed_patience)
    app.state.readers = feed.Readers(max_feeds)
    is_beside: Callable[[str], bool] = none_beside
    if beside is not None:
        pages_beside = beside(service, app.state.pulse, app.state.readers)
        guarded_app, is_beside = Split(guarded_app, pages_beside), pages_beside.serves
    if rates.per_address:
        buckets = Buckets(rates.per_address, rates.per_address * rates.burst)
        guarded_app = RateLimit(guarded_app, buckets, address_of, "address")
    traffic = Traffic(Browsers(guarded_app, hosts or Hosts()), is_beside)
    app.door = traffic
    app.state.service = service
    app.state.metrics = metrics.registry(service, traffic, app.state.readers)
    sync = SyncEndpoint(service)
    app.hot = Gate(sync, max_body_size)
    # In the table too, for answers to other methods than POST.
    app.router.routes.insert(0, Route("/v1/sessions/{name}/sync", sync, methods=["POST"]))
    routers: list[APIRouter] = [
        sessions.router,
        status.router,
        prune.router,
        values.router,
        actions.router,
        attempts.router,
        history.router,
        compare.router,
        transfer.router,
        feed.router,
        global_feed.router,
        events.router,
        explain.router,
        family.router,
        ranks.router,
        range_test.router,
        merge.router,
        plan.router,
        schedules.router,
        kinds.router,
        templates.router,
        tokens.router,
        health.router,
        metrics.router,
        pages.router,
    ]
    app.parameters = Parameters(routers)
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, max_body_size=max_body_size, max_import_size=max_import_size)
    problems.install(app)
    return app
