"""The dashboard as an application: its pages, the roles they require, and how errors are shown."""

from http import HTTPStatus

import structlog
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pacesetter_service.api.feed import Pulse, Readers
from pacesetter_service.api.problems import STATUSES
from pacesetter_service.complaints import Complaints
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.admin import Admin
from pacesetter_service.dashboard.assets import show_asset
from pacesetter_service.dashboard.compare import Compare
from pacesetter_service.dashboard.control import Control
from pacesetter_service.dashboard.create import Create
from pacesetter_service.dashboard.door import Door, Needed
from pacesetter_service.dashboard.live import Live
from pacesetter_service.dashboard.login import Login
from pacesetter_service.dashboard.manage import Manage
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.overview import Overview
from pacesetter_service.dashboard.plan import PlanPages
from pacesetter_service.dashboard.problems import Problems
from pacesetter_service.dashboard.range_test import RangeTestPages
from pacesetter_service.dashboard.ranks import RankPages
from pacesetter_service.dashboard.session import SessionPages
from pacesetter_service.dashboard.templates import TemplatePages
from pacesetter_service.dashboard.timeline import Timeline
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.service import Service

FIRST_PARTS = frozenset(
    {
        "",
        "static",
        "login",
        "logout",
        "name",
        "sessions",
        "timeline",
        "problems",
        "create",
        "templates",
        "compare",
        "admin",
        "favicon.ico",
    }
)
"""The prefixes of the dashboard's addresses; all others are the API's."""


class _NumberConvertor(IntegerConvertor):
    """A number in an address. A longer one leads to no page: no database can search for it."""

    regex = "[0-9]{1,15}"


register_url_convertor("number", _NumberConvertor())

log = structlog.get_logger("pacesetter.dashboard")

faults = Complaints(lambda **details: log.error("unforeseen_error", **details))


class Dashboard:
    """An ASGI application beside the API, behind the same rules for browsers."""

    def __init__(self, service: Service, pulse: Pulse, readers: Readers) -> None:
        """Set up the pages.

        Args:
            service: The service.
            pulse: The patience of feeds.
            readers: How many feeds are open, including those of the API.
        """
        routes = _routes(service, pulse, readers)
        pages = Starlette(routes=[route for route, _ in routes], exception_handlers=_HANDLERS)
        pages.router.redirect_slashes = False
        self._app: ASGIApp = Door(pages, service.keys, routes)

    @staticmethod
    def serves(path: str) -> bool:
        """Return whether an address is one of the dashboard's."""
        return path.startswith("/") and path[1:].partition("/")[0] in FIRST_PARTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)


def _routes(service: Service, pulse: Pulse, readers: Readers) -> list[tuple[Route, Needed]]:
    login, overview = Login(service), Overview(service)
    session, live = SessionPages(service), Live(service, pulse, readers)
    timeline, problems = Timeline(service), Problems(service)
    create, compare, admin = Create(service), Compare(service), Admin(service)
    ranks, range_test = RankPages(service), RangeTestPages(service)
    control, manage, plan = Control(service), Manage(service), PlanPages(service)
    templates = TemplatePages(service, create)
    return [
        (Route("/static/{digest}/{name:path}", show_asset), "public"),
        (Route("/login", login.show), "public"),
        (Route("/login", login.enter, methods=["POST"]), "public"),
        (Route("/logout", login.leave, methods=["POST"]), "public"),
        (Route("/name", login.call, methods=["POST"]), "viewer"),
        (Route("/", overview.show), "viewer"),
        (Route("/timeline", timeline.show_all), "viewer"),
        (Route("/timeline/feed", live.follow_all), "viewer"),
        (Route("/problems", problems.show), "viewer"),
        (Route("/create", create.gallery), "viewer"),
        (Route("/create/pictures/{kind}", create.picture), "viewer"),
        (Route("/create/kinds/{kind}", create.form), "viewer"),
        (Route("/create/kinds/{kind}", create.make, methods=["POST"]), "viewer"),
        (Route("/create/json", create.text), "viewer"),
        (Route("/create/json", create.make_of_text, methods=["POST"]), "viewer"),
        (Route("/create/advise", create.advise), "viewer"),
        (Route("/compare", compare.show), "viewer"),
        (Route("/compare/chart.json", compare.chart), "viewer"),
        (Route("/admin", admin.show), "admin"),
        (Route("/admin/tokens", admin.create_token, methods=["POST"]), "admin"),
        (Route("/admin/tokens/{number}/revoke", admin.revoke, methods=["POST"]), "admin"),
        (Route("/admin/backups", admin.back_up, methods=["POST"]), "admin"),
        (Route("/admin/backups/{file}", admin.download), "admin"),
        (Route("/admin/backups/{file}/remove", admin.remove, methods=["POST"]), "admin"),
        (Route("/admin/prune", admin.prune, methods=["POST"]), "admin"),
        (Route("/create/template", templates.draft), "operator"),
        (Route("/create/template", templates.publish, methods=["POST"]), "operator"),
        (Route("/templates", templates.list), "viewer"),
        (Route("/templates/{name}", templates.show), "viewer"),
        (
            Route(
                "/templates/{name}/{version:number}/deprecate",
                templates.deprecate,
                methods=["POST"],
            ),
            "operator",
        ),
        (Route("/sessions/{name}/ranks", ranks.show), "viewer"),
        (Route("/sessions/{name}/range-test", range_test.show), "viewer"),
        (Route("/sessions/{name}/range-test.svg", range_test.picture), "viewer"),
        (Route("/sessions/{name}/timeline", timeline.show), "viewer"),
        (Route("/sessions/{name}", session.show), "viewer"),
        (Route("/sessions/{name}/chart.json", session.chart), "viewer"),
        (Route("/sessions/{name}/explain", session.explain), "viewer"),
        (Route("/sessions/{name}/feed", live.follow), "viewer"),
        (Route("/sessions/{name}/control/{kind}", control.show), "operator"),
        (Route("/sessions/{name}/control/{kind}", control.order, methods=["POST"]), "operator"),
        (
            Route(
                "/sessions/{name}/orders/{number:number}/cancel", control.cancel, methods=["POST"]
            ),
            "operator",
        ),
        (Route("/sessions/{name}/plan", plan.show), "viewer"),
        (Route("/sessions/{name}/plan/probe", plan.probe, methods=["POST"]), "operator"),
        (
            Route(
                "/sessions/{name}/plan/candidates/{number:number}",
                plan.candidate,
                methods=["GET", "POST"],
            ),
            "operator",
        ),
        (Route("/sessions/{name}/manage", manage.show), "trainer"),
        (Route("/sessions/{name}/manage/{what}", manage.change, methods=["POST"]), "trainer"),
        (Route("/sessions/{name}/spec.json", session.spec), "viewer"),
        (Route("/sessions/{name}/spec.yaml", session.spec_as_yaml), "viewer"),
        (Route("/sessions/{name}/record.csv", session.table), "viewer"),
        (Route("/sessions/{name}/spark.svg", session.spark), "viewer"),
        (Route("/sessions/{name}/lr.svg", session.picture), "viewer"),
    ]


# Errors -----------------------------------------------------------------------------------------


async def _of_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PacesetterError)  # noqa: S101 - by the table below
    status, _ = STATUSES[type(error)]
    return site.refusal(request, status, str(error))


async def _of_argument(request: Request, error: Exception) -> Response:
    assert isinstance(error, ArgumentError)  # noqa: S101 - by the table below
    return site.refusal(request, HTTPStatus.UNPROCESSABLE_ENTITY, error.message)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101 - by the table below
    said = "This is not valid."
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return site.refusal(request, status, said, mistakes=mistakes_in(error))


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - by the table below
    said = {
        404: "There is no page at this address.",
        405: "This address does not take that.",
    }
    return site.refusal(request, error.status_code, said.get(error.status_code, error.detail))


async def _unforeseen(request: Request, error: Exception) -> Response:
    faults.tell(type(error).__name__, path=request.url.path, exc_info=error)
    return site.refusal(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The service failed at this. See its log, try again, and report it if it happens again.",
    )


_HANDLERS = {
    PacesetterError: _of_error,
    ArgumentError: _of_argument,
    ValidationError: _of_validation,
    HTTPException: _of_http,
    Exception: _unforeseen,
}
