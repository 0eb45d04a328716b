"""Templates: a team's schedules, published under a name and a version."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api.context import Context, Service
from pacesetter_service.core.errors import TemplateNotFoundError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import Published, Template, TemplateUse, diff
from pacesetter_service.storage.store import Store

router = APIRouter(prefix="/v1/templates", tags=["templates"])

Name = Annotated[str, Path(description="The template's name.")]
Version = Annotated[int, Path(ge=1, description="The template's version.")]


class TemplateView(BaseModel):
    """A published template."""

    reference: str
    name: str
    version: int
    template: Template
    deprecated: str | None
    created_at: str


class TemplateList(BaseModel):
    """Templates, by name and version."""

    templates: list[TemplateView]


class DifferenceView(BaseModel):
    """One place in which two versions differ; null is what is not there."""

    pointer: str
    before: JsonValue
    after: JsonValue


class DiffAnswer(BaseModel):
    """What changed from one version to another."""

    differences: list[DifferenceView]


class Deprecation(BaseModel):
    """Why a template should not be used any more."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


@router.post("", status_code=201)
async def publish_template(template: Template, service: Service) -> TemplateView:
    """Publish a template; it gets the next version, and never changes again.

    The same body as the newest version again answers that version.
    """
    return view(await service.ledger.call(lambda store: _publish(store, template)))


@router.get("")
async def list_templates(service: Service) -> TemplateList:
    """List the newest version of each template."""
    found = await run_in_threadpool(service.store.templates)
    newest = {published.template.name: published for published in found}
    return TemplateList(templates=[view(published) for published in newest.values()])


@router.get("/{name}")
async def list_versions(name: Name, service: Service) -> TemplateList:
    """List every version of a template."""
    found = await run_in_threadpool(service.store.templates, name)
    if not found:
        raise TemplateNotFoundError(name)
    return TemplateList(templates=[view(published) for published in found])


@router.get("/{name}/diff")
async def diff_versions(
    name: Name,
    service: Service,
    before: Annotated[int, Query(ge=1)],
    after: Annotated[int, Query(ge=1)],
) -> DiffAnswer:
    """Name the places in which two versions of a template differ."""
    old, new = await find(service, name, before), await find(service, name, after)
    pairs = diff(old.template.model_dump(mode="json"), new.template.model_dump(mode="json"))
    return DiffAnswer(differences=[DifferenceView(**each._asdict()) for each in pairs])


@router.get("/{name}/{version}")
async def read_template(name: Name, version: Version, service: Service) -> TemplateView:
    """Read one version of a template."""
    return view(await find(service, name, version))


@router.post("/{name}/{version}/deprecate")
async def deprecate_template(
    name: Name, version: Version, deprecation: Deprecation, service: Service
) -> TemplateView:
    """Say why a version should not be used any more; sessions made from it warn of it."""
    published = (await find(service, name, version))._replace(deprecated=deprecation.reason)
    await service.ledger.call(lambda store: store.write_template(published))
    return view(published)


async def find(service: Context, name: str, version: int) -> Published:
    """Give a template in one version.

    Raises:
        TemplateNotFoundError: There is none.
    """
    published = await run_in_threadpool(service.store.template, name, version)
    if published is None:
        raise TemplateNotFoundError(f"{name}@{version}")
    return published


async def spec_of(service: Context, use: TemplateUse) -> tuple[SessionSpec, Published]:
    """Make a session's spec from the template that it names."""
    published = await find(service, *use.reference)
    return await run_in_threadpool(use.spec, published.template), published


def view(published: Published) -> TemplateView:
    """Show a template."""
    return TemplateView(
        reference=str(published.reference),
        name=published.template.name,
        version=published.version,
        template=published.template,
        deprecated=published.deprecated,
        created_at=published.created_at,
    )


def _publish(store: Store, template: Template) -> Published:
    newest = store.template(template.name)
    if newest is not None and newest.template == template:
        return newest
    version = 1 if newest is None else newest.version + 1
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    published = Published(template, version, now)
    store.write_template(published)
    return published
