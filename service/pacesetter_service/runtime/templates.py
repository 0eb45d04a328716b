"""Templates: an operator publishes a team's schedules, in versions that never change."""

from datetime import UTC, datetime

from pacesetter_service.catalogue.templates import Published, Template
from pacesetter_service.runtime.queries.templates import find_template
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.store import Store


async def publish_template(service: Service, template: Template) -> Published:
    """Publish a template under its next version; if the newest version equals it, return that.

    Raises:
        StorageUnavailableError: The database did not accept it.
    """
    return await service.writer.call(lambda: _published(service.store, template))


async def deprecate_template(service: Service, name: str, version: int, reason: str) -> Published:
    """Record why a version should no longer be used; sessions made from it carry a warning.

    Raises:
        TemplateNotFoundError: There is no such version.
    """
    found = await find_template(service, name, version)
    store = service.store
    await service.writer.call(lambda: store.deprecate_template(name, found.version, reason))
    return found._replace(deprecated=reason)


def _published(store: Store, template: Template) -> Published:
    while True:
        newest = store.template(template.name)
        if newest is not None and newest.template == template:
            return newest
        version = 1 if newest is None else newest.version + 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        published = Published(template, version, now)
        if store.add_template(published):  # otherwise another writer has taken the number meanwhile
            return published
