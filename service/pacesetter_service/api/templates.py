"""Templates: a team's schedules, published under a name and a version."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json

from pacesetter_service.api import bodies, paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.auth import refuse_name
from pacesetter_service.api.callers import answer, unless_gone
from pacesetter_service.api.context import Names, Service
from pacesetter_service.api.openapi import body_of
from pacesetter_service.catalogue.templates import (
    DeprecationReason,
    Difference,
    Published,
    Template,
)
from pacesetter_service.core.model import MAX_STEP, Model
from pacesetter_service.runtime import templates
from pacesetter_service.runtime.queries import templates as queries

router = APIRouter(prefix="/v1/templates", tags=["templates"])

Name = Annotated[str, Path(description="The template's name.")]
Version = Annotated[int, Path(ge=1, le=MAX_STEP, description="The template's version.")]


class TemplateView(BaseModel):
    """A published template."""

    reference: str = Field(description="the name and the version, such as `vit@3`")
    name: str = Field(description="the template's name")
    version: int = Field(description="its version, from 1")
    template: Template = Field(description="what was published")
    deprecated: str | None = Field(
        description="why it should not be used any more; null if it may be"
    )
    created_at: Moment = Field(description="when it was published")


class TemplateList(BaseModel):
    """Templates, by name and version."""

    templates: list[TemplateView] = Field(description="the templates")
    next_page_token: str | None = Field(default=None, description=paging.WHOLE)


class DifferenceView(BaseModel):
    """One place where two versions differ; null if there is no value."""

    pointer: str = Field(description="a JSON pointer to the place in the template")
    before: JsonValue = Field(description="what stands there in the earlier version")
    after: JsonValue = Field(description="what stands there in the later version")


class DiffAnswer(BaseModel):
    """What changed from one version to another."""

    differences: list[DifferenceView] = Field(description="the places in which they differ")


class Deprecation(Model):
    """Why a template should no longer be used."""

    reason: DeprecationReason = Field(
        description="why the version should not be used any more, and what to use"
    )


@router.post("", status_code=201, openapi_extra=body_of("Template"))
async def publish_template(
    template: Annotated[Template, bodies.model(Template)], service: Service, names: Names
) -> TemplateView:
    """Publish a template; it gets the next version, and never changes again.

    If the body equals the newest version, the answer is that version.
    """
    refuse_name(names, template.name, "name")
    return view(await templates.publish_template(service, template))


@router.get("", response_model=TemplateList)
async def list_templates(request: Request, service: Service, names: Names) -> Response:
    """List the newest version of each template that the caller's token is for."""
    return await answer(request, queries.list_templates(service, names, _list))


@router.get("/{name}", response_model=TemplateList)
async def list_versions(name: Name, request: Request, service: Service) -> Response:
    """List every version of a template."""
    return await answer(request, queries.list_versions(service, name, _list))


@router.get("/{name}/diff", response_model=DiffAnswer)
async def diff_versions(
    name: Name,
    request: Request,
    service: Service,
    before: Annotated[int, Query(ge=1, le=MAX_STEP)],
    after: Annotated[int, Query(ge=1, le=MAX_STEP)],
) -> Response:
    """Return the places where two versions of a template differ."""
    comparing = queries.compare_versions(service, name, before, after, _differences)
    return await answer(request, comparing)


@router.get("/{name}/{version}")
async def read_template(
    name: Name, version: Version, request: Request, service: Service
) -> TemplateView:
    """Read one version of a template."""
    return view(await unless_gone(request, queries.find_template(service, name, version)))


@router.post("/{name}/{version}/deprecate", openapi_extra=body_of("Deprecation"))
async def deprecate_template(
    name: Name,
    version: Version,
    deprecation: Annotated[Deprecation, bodies.model(Deprecation)],
    request: Request,
    service: Service,
) -> TemplateView:
    """Record why a version should no longer be used; sessions made from it carry a warning."""
    saying = templates.deprecate_template(service, name, version, deprecation.reason)
    return view(await unless_gone(request, saying))


def view(published: Published) -> TemplateView:
    """Return the view of a template."""
    return TemplateView(
        reference=str(published.reference),
        name=published.template.name,
        version=published.version,
        template=published.template,
        deprecated=published.deprecated,
        created_at=published.created_at,
    )


def _list(found: list[Published]) -> bytes:
    return to_json(TemplateList(templates=[view(each) for each in found]))


def _differences(found: list[Difference]) -> bytes:
    return to_json(DiffAnswer(differences=[DifferenceView(**each._asdict()) for each in found]))
