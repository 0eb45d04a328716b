"""The outcome of a range test, and a session that begins with it."""

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.core.controllers.range_test import RangeTest
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.insight import pictures
from pacesetter_service.runtime.queries.range_test import RangeTestAnswer, read_range_test
from pacesetter_service.runtime.service import Service


class RangeTestPages:
    """The page of a range test, and its picture."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show the rates that rules read off the curve."""
        name = request.path_params["name"]
        facts = await read_facts(self._service, name)
        found = await self._found(request)
        return site.show(
            request,
            "range_test.html",
            name=name,
            facts=facts,
            found=found,
            known=sorted(facts.session.reported),
        )

    async def picture(self, request: Request) -> Response:
        """Answer with a picture of the loss over the learning rate, and of each rule's rate."""
        found = await self._found(request)
        drawn = pictures.draw_range_test(
            title=f"{found.metric} over {found.series}",
            lr=found.curve.lr,
            loss=found.curve.loss,
            smoothed=found.curve.smoothed,
            suggestions={name: each.lr for name, each in found.suggestions.items()},
            proposal=found.proposal.lr,
        )
        headers = {"cache-control": "no-store"}
        return Response(drawn, headers=headers, media_type="image/svg+xml")

    async def _found(self, request: Request) -> RangeTestAnswer:
        name = request.path_params["name"]
        metric = request.query_params.get("metric", "").strip() or await self._metric(name)
        return await read_range_test(self._service, name, metric, None, lambda found: found)

    async def _metric(self, name: str) -> str | None:
        """Return the most telling metric; None if a controller names the metric."""
        facts = await read_facts(self._service, name)
        said = any(isinstance(each, RangeTest) for each in facts.session.spec.rules)
        return None if said or facts.loss is None else facts.loss[0]
