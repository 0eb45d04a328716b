"""What admins do: tokens, old sessions, and copies of the database."""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import JsonValue, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from pacesetter_service.api.tokens import TokenRequest
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.tokens import ROLES, NameScope
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.forms import filled, read_form
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.visitors import visitor_of
from pacesetter_service.runtime import retention, tokens
from pacesetter_service.runtime.backups import BackupError, Copy
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.retention import DAY, Policy, PutAway
from pacesetter_service.runtime.service import Service

LOOKED_AT = 500
"""How many old sessions are examined at a time."""

OLD = "30"
"""Days after which a session is old, by default."""


class Admin:
    """The page of admins."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Show the tokens, the database, and what could be put away."""
        return await self._page(request, {})

    async def create_token(self, request: Request) -> Response:
        """Create a token, and show its secret once."""
        form = await read_form(request)
        try:
            asked = TokenRequest.model_validate(_asked(form))
            _, secret = await tokens.create_token(
                self._service,
                asked.name,
                asked.role,
                asked.until(),
                NameScope(asked.scope),
                visitor_of(request).name,
            )
        except (PacesetterError, ValidationError) as error:
            return await self._page(request, form, mistakes=_reasons(error))
        return await self._page(request, {}, secret=secret)

    async def revoke(self, request: Request) -> Response:
        """Revoke a token."""
        await read_form(request)
        number = request.path_params["number"]
        await tokens.revoke_token(self._service, number, visitor_of(request).name)
        return site.redirect(request, "admin")

    async def prune(self, request: Request) -> Response:
        """Put old sessions away, or show which."""
        form = await read_form(request)
        days = form.get("days", "").strip()
        if not (days.isascii() and days.isdigit() and len(days) < 6):
            return await self._page(request, form, mistakes=("Days: write a whole number.",))
        what = form.get("what", "archive")
        policy = Policy(
            float(days) * DAY,
            ("archived",) if what == "purge" else ("finished", "failed"),
            {},
            purges=what == "purge",
        )
        dry = form.get("do") != "prune"
        page = await retention.prune(
            self._service,
            policy,
            visitor_of(request).name,
            dry_run=dry,
            below=None,
            limit=LOOKED_AT,
        )
        return await self._page(request, form, pruned=page.sessions, dry=dry)

    async def back_up(self, request: Request) -> Response:
        """Begin a copy of the database; the page shows its progress."""
        await read_form(request)
        backups, visitor = self._service.backups, visitor_of(request)
        try:
            await in_thread(backups.begin, visitor.name)
        except BackupError as error:
            return await self._page(request, {}, mistakes=(f"No copy was begun: {error}.",))
        return site.redirect(request, "admin")

    async def download(self, request: Request) -> Response:
        """Answer with a copy of the database, for download."""
        found = await self._copy(request)
        headers = {"cache-control": "no-store"}
        media_type, name = "application/vnd.sqlite3", found.path.name
        return FileResponse(found.path, headers=headers, media_type=media_type, filename=name)

    async def remove(self, request: Request) -> Response:
        """Remove a copy of the database."""
        await read_form(request)
        found = await self._copy(request)
        await in_thread(self._service.backups.remove, found.path.name, visitor_of(request).name)
        return site.redirect(request, "admin")

    async def _copy(self, request: Request) -> Copy:
        found = await in_thread(self._service.backups.find, request.path_params["file"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return found

    async def _page(
        self,
        request: Request,
        form: Mapping[str, str],
        *,
        mistakes: tuple[str, ...] = (),
        secret: str = "",
        pruned: list[PutAway] | None = None,
        dry: bool = True,
    ) -> Response:
        guarded = self._service.keys is not None
        found = await in_thread(self._service.census.newest)
        return site.show(
            request,
            "admin.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if mistakes else HTTPStatus.OK,
            secret=bool(secret),
            made=secret,
            guarded=guarded,
            tokens=tokens.list_tokens(self._service) if guarded else [],
            roles=ROLES,
            found=found,
            said={"name": "", "role": "viewer", "scope": "", "expires_in_days": "",
                  "days": OLD, "what": "archive", **form},
            mistakes=mistakes,
            pruned=pruned,
            dry=dry,
            keeping=self._service.keeping,
            source=self._service.backups.source,
            copying=await in_thread(self._service.backups.copying),
            copies=await in_thread(self._service.backups.copies),
        )  # fmt: skip


def _asked(form: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the request in a form, as the API takes it."""
    asked: dict[str, JsonValue] = dict(filled(form, "name", "role"))
    if patterns := form.get("scope", "").split():
        asked["scope"] = list(patterns)
    if days := form.get("expires_in_days", "").strip():
        asked["expires_in_days"] = float(days) if days.isdecimal() else days
    return asked


def _reasons(error: Exception) -> tuple[str, ...]:
    return mistakes_in(error) if isinstance(error, ValidationError) else (str(error),)
