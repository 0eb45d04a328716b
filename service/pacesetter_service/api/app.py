"""The ASGI application: routes, the gate in front of them, and errors as problems."""

import re
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pacesetter_service import __version__
from pacesetter_service.api import (
    actions,
    attempts,
    controllers,
    events,
    explain,
    feed,
    fleet,
    health,
    history,
    problems,
    range_test,
    schedules,
    sessions,
    templates,
    transfer,
    values,
)
from pacesetter_service.api.context import Context
from pacesetter_service.api.gate import Gate
from pacesetter_service.api.openapi import completed
from pacesetter_service.api.sync import SyncEndpoint
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import TemplateUse
from pacesetter_service.fleet import Fleet
from pacesetter_service.ledger import Ledger
from pacesetter_service.storage.store import Store

DESCRIPTION = (
    "Pacesetter owns the learning rates of running trainings. Create a session with a schedule, "
    "ask for its values at each step, report metrics; every value handed out is final."
)


_SYNC_PATH = re.compile(r"/v1/sessions/(?P<name>[^/]+)/sync")


class App(FastAPI):
    """FastAPI, with the hot endpoint in front of it and described beside the typed ones."""

    hot: ASGIApp
    release: Callable[[], None]
    """Let go of the calls that are held: the server is to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the hot call past the framework, whose layers cost as much as all of its answer."""
        if scope["type"] == "http" and scope["method"] == "POST":
            match = _SYNC_PATH.fullmatch(scope["path"])
            if match is not None:
                scope["path_params"] = match.groupdict()
                await self.hot(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Give the OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi(), SessionSpec, TemplateUse)
        return self.openapi_schema


def create_app(
    store: Store,
    ledger: Ledger,
    *,
    max_body_size: int = 1_048_576,
    max_import_size: int = 1_073_741_824,
    feed_heartbeat: float = 15.0,
    feed_patience: float = 30.0,
) -> App:
    """Build the application around a store and a running ledger."""
    app = App(title="Pacesetter", version=__version__, description=DESCRIPTION)
    ranks = Fleet()
    app.state.context = Context(store, ledger, ranks)
    sync = SyncEndpoint(ledger, store, ranks)
    app.hot = Gate(sync, max_body_size)
    live = feed.Feed(store, ledger, heartbeat=feed_heartbeat, patience=feed_patience)
    app.state.feed = live

    def release() -> None:
        sync.release()
        live.release()

    app.release = release
    # In the table too, for the answers to what is not a POST.
    app.router.routes.insert(0, Route("/v1/sessions/{name}/sync", sync, methods=["POST"]))
    routers: list[APIRouter] = [
        sessions.router,
        values.router,
        actions.router,
        attempts.router,
        history.router,
        transfer.router,
        feed.router,
        events.router,
        explain.router,
        fleet.router,
        range_test.router,
        schedules.router,
        controllers.router,
        templates.router,
        health.router,
    ]
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, max_body_size=max_body_size, max_import_size=max_import_size)
    problems.install(app)
    return app
