"""Published templates, and what changed between their versions."""

from collections.abc import Callable
from typing import TypeVar

from pacesetter_service.catalogue.templates import Difference, Published, diff
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import TemplateNotFoundError
from pacesetter_service.core.tokens import NameScope
from pacesetter_service.runtime.pool import checked
from pacesetter_service.runtime.service import Service

T = TypeVar("T")


async def find_template(service: Service, name: str, version: int) -> Published:
    """Return one version of a template.

    Raises:
        TemplateNotFoundError: There is none.
        BusyError: Too many large requests are being checked already.
    """
    published = await service.checks.run(lambda _check: service.store.template(name, version))
    if published is None:
        raise TemplateNotFoundError(f"{name}@{version}")
    return published


async def list_templates(
    service: Service, names: NameScope, show: Callable[[list[Published]], T]
) -> T:
    """Return what `show` makes of the newest version of each template that the caller may see.

    Raises:
        BusyError: Too many costly answers are being prepared already.
    """

    def answer(check: Check) -> T:
        found = checked(service.store.newest_templates(), check)
        return show([each for each in found if names.holds(each.template.name)])

    return await service.reads.run(answer)


async def list_versions(service: Service, name: str, show: Callable[[list[Published]], T]) -> T:
    """Return what `show` makes of every version of a template.

    Raises:
        TemplateNotFoundError: There is no template of that name.
        BusyError: Too many costly answers are being prepared already.
    """

    def answer(check: Check) -> T:
        found = list(checked(service.store.templates(name), check))
        if not found:
            raise TemplateNotFoundError(name)
        return show(found)

    return await service.reads.run(answer)


async def compare_versions(
    service: Service, name: str, before: int, after: int, show: Callable[[list[Difference]], T]
) -> T:
    """Return what `show` makes of the places where two versions of a template differ.

    Raises:
        TemplateNotFoundError: There is no such version.
        BusyError: Too many costly answers are being prepared already.
    """
    old = await find_template(service, name, before)
    new = await find_template(service, name, after)

    def answer(check: Check) -> T:
        one, other = (side.template.model_dump(mode="json") for side in (old, new))
        return show(list(checked(diff(one, other), check)))

    return await service.reads.run(answer)
