"""The ASGI application: the guard, the gate, the routes, and errors as problems."""

import re
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr
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
    metrics,
    problems,
    range_test,
    schedules,
    sessions,
    templates,
    tokens,
    transfer,
    values,
)
from pacesetter_service.api.auth import Guard, Keyring
from pacesetter_service.api.context import Context
from pacesetter_service.api.gate import Gate
from pacesetter_service.api.openapi import completed, guarded
from pacesetter_service.api.sync import SyncEndpoint
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import TemplateUse
from pacesetter_service.fleet import Fleet
from pacesetter_service.ledger import Ledger
from pacesetter_service.storage import tokens as stored_tokens
from pacesetter_service.storage.store import Store

DESCRIPTION = (
    "Pacesetter owns the learning rates of running trainings. Create a session with a schedule, "
    "ask for its values at each step, report metrics; every value handed out is final."
)


log = structlog.get_logger("pacesetter.api")

_SYNC_PATH = re.compile(r"/v1/sessions/(?P<name>[^/]+)/sync")


class App(FastAPI):
    """FastAPI, with the hot endpoint in front of it and described beside the typed ones."""

    door: ASGIApp
    """What every request comes to first: the guard, if anybody is to be kept out."""
    hot: ASGIApp
    release: Callable[[], None]
    """Let go of the calls that are held: the server is to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request in by the one door that there is."""
        await self.door(scope, receive, send)

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            document = completed(super().openapi(), SessionSpec, TemplateUse)
            context: Context = self.state.context
            self.openapi_schema = guarded(document, optional=context.keys is None)
        return self.openapi_schema


def create_app(
    store: Store,
    ledger: Ledger,
    *,
    max_body_size: int = 1_048_576,
    max_import_size: int = 1_073_741_824,
    feed_heartbeat: float = 15.0,
    feed_patience: float = 30.0,
    admin_token: SecretStr | None = None,
) -> App:
    """Build the application around a store and a running ledger.

    Without an `admin_token` it asks nobody who they are.
    """
    app = App(title="Pacesetter", version=__version__, description=DESCRIPTION)
    ranks = Fleet()
    keys = _keys(store, admin_token)
    app.door = app.inside if keys is None else Guard(app.inside, keys)
    app.state.context = Context(store, ledger, ranks, metrics.registry(ranks, ledger), keys)
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
        tokens.router,
        health.router,
        metrics.router,
    ]
    for router in routers:
        app.include_router(router)
    app.add_middleware(Gate, max_body_size=max_body_size, max_import_size=max_import_size)
    problems.install(app)
    return app


def _keys(store: Store, admin_token: SecretStr | None) -> Keyring | None:
    with store.moment() as connection:
        known = stored_tokens.read(connection)
    if admin_token is not None:
        return Keyring(admin_token.get_secret_value(), known)
    if known:  # somebody wanted this service guarded, once
        advice = "set PACESETTER_ADMIN_TOKEN, without which nobody is asked for a token"
        log.warning("tokens_not_asked_for", tokens=len(known), advice=advice)
    return None
