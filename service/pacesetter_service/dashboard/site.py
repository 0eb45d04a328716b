"""How pages are made: templates, addresses relative to the page, and the rules for browsers."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import DictLoader, Environment, StrictUndefined
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pacesetter_service import __version__
from pacesetter_service.core.tokens import Role
from pacesetter_service.dashboard import drawing, wording
from pacesetter_service.dashboard.assets import ASSETS, takes_gzip
from pacesetter_service.dashboard.visitors import visitor_of

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)

RULES: Mapping[str, str] = {
    "content-security-policy": POLICY,
    # Our forms say in Origin where they come from; other sites do not learn our addresses.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
}

WORTH_ZIPPING = 1024
"""The fewest bytes of an answer that is compressed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A page that every other page links to.

    Attributes:
        path: Its address, without the leading slash.
        title: Its title.
        needed: The role that it requires.
        part: The prefix of the addresses of its own pages.
    """

    path: str
    title: str
    needed: Role
    part: str


ENTRIES: list[Entry] = [
    Entry("", "Sessions", "viewer", "sessions"),
    Entry("timeline", "Timeline", "viewer", "timeline"),
    Entry("problems", "Problems", "viewer", "problems"),
    Entry("create", "Create", "viewer", "create"),
    Entry("compare", "Compare", "viewer", "compare"),
    Entry("admin", "Admin", "admin", "admin"),
]

TEMPLATES = {each.name: each.read_text() for each in Path(__file__).parent.glob("pages/*.html")}
"""All templates, read at the start: later there may be no file descriptor left to read one."""

pages = Environment(
    loader=DictLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
pages.globals |= {"version": __version__, "draw": drawing}
pages.filters |= {
    "count": wording.count,
    "rate": wording.rate,
    "duration": wording.duration,
    "moment": wording.moment,
    "age": wording.age,
    "days": wording.days,
    "coded": wording.coded,
    "bytes": wording.size,
    "as_json": wording.as_json,
}

# Refusals must always be shown. To compile one also loads what the other templates need for that:
# to compile all of them here would make the start a seventh longer.
for _name in ("base.html", "refusal.html"):
    pages.get_template(_name)


def root_of(request: Request) -> str:
    """Return the relative path from a page to `/`: a proxy may serve all pages under a prefix."""
    return "../" * (request.url.path.count("/") - 1) or "./"


def show(
    request: Request,
    page: str,
    *,
    status: int = 200,
    secret: bool = False,
    **context: object,
) -> Response:
    """Show a page.

    Args:
        request: The request.
        page: The template's name.
        status: The status of the answer.
        secret: Whether it contains a secret: then it is not compressed, because the length reveals
            something about texts that are compressed together.
        context: The variables of the template.
    """
    html = pages.get_template(page).render({**_around(request), **context})
    return _answered(request, html.encode(), HTMLResponse.media_type or "", status, secret=secret)


def show_json(request: Request, data: object) -> Response:
    """Answer one of our scripts."""
    return _answered(request, to_json(data, inf_nan_mode="null"), "application/json", 200)


def redirect(request: Request, path: str, **query: object) -> Response:
    """Redirect to another of our pages, by a path relative to this one."""
    asked = f"?{urlencode(query)}" if query else ""
    where = f"{root_of(request)}{quote(path)}{asked}"
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={**RULES, "location": where})


def refusal(
    request: Request,
    status: int,
    message: str,
    *,
    mistakes: tuple[str, ...] = (),
    known: bool = True,
) -> Response:
    """Show why something was not done, and what to do."""
    title = HTTPStatus(status).phrase
    return show(
        request,
        "refusal.html",
        status=status,
        title=title,
        message=message,
        mistakes=mistakes,
        stranger=not known,
    )


def _around(request: Request) -> dict[str, Any]:
    """Return what every page needs."""
    root, visitor = root_of(request), visitor_of(request)

    def url(path: str = "", **query: object) -> str:
        asked = {name: value for name, value in query.items() if value not in (None, "")}
        return root + quote(path) + (f"?{urlencode(asked, doseq=True)}" if asked else "")

    return {
        "url": url,
        "asset": lambda name: root + ASSETS[name].path,
        "visitor": visitor,
        "entries": [each for each in ENTRIES if visitor.may(each.needed)],
        "part": request.url.path.split("/")[1],
        "stranger": False,
    }


def _answered(
    request: Request, content: bytes, media_type: str, status: int, *, secret: bool = False
) -> Response:
    headers = {**RULES, "vary": "accept-encoding, cookie"}
    if not secret and len(content) >= WORTH_ZIPPING and takes_gzip(request):
        headers["content-encoding"] = "gzip"
        content = gzip.compress(content, 5, mtime=0)
    return Response(content, status, headers, media_type)
