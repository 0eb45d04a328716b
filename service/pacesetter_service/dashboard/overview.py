"""The first page: all sessions, those in trouble first."""

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime.queries.sessions import list_sessions
from pacesetter_service.runtime.service import Service


class Overview:
    """The page of all sessions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show a page of sessions."""
        page = await list_sessions(
            self._service,
            lambda found: found,
            after=request.query_params.get("after", ""),
            limit=100,
            status=None,
            label=None,
            names=visitor_of(request).scope,
        )
        return site.show(request, "overview.html", found=page)
