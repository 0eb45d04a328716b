"""Templates: published ones, drafts, and versions that should no longer be used."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.catalogue.templates import (
    DeprecationReason,
    Difference,
    Published,
    Template,
    TemplateUse,
    diff,
)
from pacesetter_service.core.errors import PacesetterError, TemplateNotFoundError
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.create import Create, Fields, Look, json_in
from pacesetter_service.dashboard.forms import read_form
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.orders import FieldError
from pacesetter_service.dashboard.visitors import refuse_name, visitor_of
from pacesetter_service.runtime import templates
from pacesetter_service.runtime.queries import templates as queries
from pacesetter_service.runtime.service import Service

_FIELDS: TypeAdapter[Fields] = TypeAdapter(dict[str, JsonValue])

_REASON: TypeAdapter[str] = TypeAdapter(DeprecationReason)

EXAMPLE: Mapping[str, str] = {
    "name": "",
    "description": "",
    "parameters": json.dumps(
        {"total_steps": {"description": "how long to train", "example": 1000}}, indent=2
    ),
    "spec": json.dumps(
        {
            "base_lr": 0.001,
            "total_steps": {"$": "total_steps"},
            "schedule": {
                "kind": "warmup_cosine",
                "warmup_steps": 100,
                "total_steps": {"$": "total_steps"},
            },
        },
        indent=2,
    ),
}
"""The initial values of a template's form."""


class TemplatePages:
    """The pages about templates."""

    def __init__(self, service: Service, create: Create) -> None:
        self._service = service
        self._create = create

    async def list(self, request: Request) -> Response:
        """Show the published templates."""
        names = visitor_of(request).scope
        found = await queries.list_templates(self._service, names, lambda each: each)
        return site.show(request, "templates.html", found=found)

    async def show(self, request: Request) -> Response:
        """Show the versions of a template, and where two of them differ."""
        return await self._page(request, ())

    async def _page(self, request: Request, mistakes: tuple[str, ...]) -> Response:
        name = request.path_params["name"]
        versions = await queries.list_versions(self._service, name, lambda each: each)
        newest = max(versions, key=lambda each: each.version)
        before = _number_in(request, "before", max(newest.version - 1, 1))
        after = _number_in(request, "after", newest.version)
        differences = []
        if before != after:
            differences = await queries.compare_versions(
                self._service, name, before, after, lambda each: each
            )
        trial = {key: each.trial for key, each in newest.template.parameters.items()}
        use = {"name": "", "template": str(newest.reference), "with": trial}
        return site.show(
            request,
            "template.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if mistakes else HTTPStatus.OK,
            mistakes=mistakes,
            name=name,
            versions=versions,
            newest=newest,
            body=json.dumps(newest.template.spec, indent=2),
            use=json.dumps(use, indent=2),
            before=before,
            after=after,
            differences=differences,
        )

    async def draft(self, request: Request) -> Response:
        """Show the form of a template, or of the next version of an existing one."""
        said = dict(EXAMPLE)
        if name := request.query_params.get("of", ""):
            refuse_name(name, visitor_of(request))
            newest = await self._newest(name)
            if newest is None:
                raise TemplateNotFoundError(name)
            template = newest.template.model_dump(mode="json", exclude_defaults=True)
            said = {
                "name": name,
                "description": newest.template.description,
                "parameters": json.dumps(template.get("parameters", {}), indent=2),
                "spec": json.dumps(newest.template.spec, indent=2),
            }
        return await self._form(request, said, wrong=False)

    async def publish(self, request: Request) -> Response:
        """Show a preview of a template, or publish it."""
        said = {**EXAMPLE, **await read_form(request)}
        if said.get("do") != "publish":
            return await self._form(request, said, wrong=False)
        try:
            template = _template_in(said)
            refuse_name(template.name, visitor_of(request))
            published = await templates.publish_template(self._service, template)
        except (PacesetterError, ValidationError, FieldError):
            return await self._form(request, said, wrong=True)
        return site.redirect(request, f"templates/{published.template.name}")

    async def deprecate(self, request: Request) -> Response:
        """Record why a version should no longer be used."""
        form = await read_form(request)
        name, version = request.path_params["name"], request.path_params["version"]
        try:
            reason = _REASON.validate_python(form.get("reason", "").strip())
        except ValidationError as error:
            return await self._page(request, mistakes_in(error))
        await templates.deprecate_template(self._service, name, version, reason)
        return site.redirect(request, f"templates/{name}")

    async def _form(self, request: Request, said: Mapping[str, str], *, wrong: bool) -> Response:
        """Show the form, with a preview of the template for the parameters that are tried."""
        look, differences, newest = Look(), list[Difference](), None
        try:
            template = _template_in(said)
            refuse_name(template.name, visitor_of(request))
            look = await self._create.look(request, _tried(template))
            newest = await self._newest(template.name)
            if newest is not None:
                before, after = (
                    each.model_dump(mode="json") for each in (newest.template, template)
                )
                differences = [*diff(before, after)]
        except (PacesetterError, ValidationError, FieldError) as error:
            if said["name"] or wrong:
                look = Look(refused=_reasons(error))
        return site.show(
            request,
            "publish.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK,
            said=said,
            look=look,
            newest=newest,
            differences=differences,
        )

    async def _newest(self, name: str) -> Published | None:
        try:
            versions = await queries.list_versions(self._service, name, lambda each: each)
        except TemplateNotFoundError:
            return None
        return max(versions, key=lambda each: each.version)


def _template_in(said: Mapping[str, str]) -> Template:
    """Return the template that a form describes.

    Raises:
        FieldError: A field is not JSON.
        ValidationError: It is not a template.
    """
    parameters = said["parameters"].strip()
    return Template.model_validate(
        {
            "name": said["name"].strip(),
            "description": said["description"].strip().replace("\r\n", "\n"),
            "parameters": json_in(parameters, "parameters") if parameters else {},
            "spec": json_in(said["spec"], "spec"),
        }
    )


def _tried(template: Template) -> Fields:
    """Return the spec of a session with which a template is tried."""
    trial = {name: each.trial for name, each in template.parameters.items()}
    use = TemplateUse.model_validate(
        {"name": "preview", "template": f"{template.name}@1", "with": trial}
    )
    spec = use.spec(template).model_dump(mode="json", exclude_defaults=True)
    return _FIELDS.validate_python({name: each for name, each in spec.items() if name != "origin"})


def _number_in(request: Request, name: str, default: int) -> int:
    said = request.query_params.get(name, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else default


def _reasons(error: Exception) -> tuple[str, ...]:
    return mistakes_in(error) if isinstance(error, ValidationError) else (str(error),)
