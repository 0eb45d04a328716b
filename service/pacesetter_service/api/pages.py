"""The pages that show the API to people, with the rules that keep them to what they need."""

import base64
import re
from hashlib import sha256

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

SOURCE = "https://cdn.jsdelivr.net"
"""Where the scripts and styles of both pages come from."""

_OPENAPI = "openapi.json"
"""Beside the page, wherever a proxy has put both."""

_NO_ICON = "data:,"
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@router.get("/docs")
async def show_docs() -> HTMLResponse:
    """Show every call, to be tried out."""
    return _DOCS


@router.get("/redoc")
async def show_redoc() -> HTMLResponse:
    """Show every call, to be read."""
    return _REDOC


def _with_rules(page: HTMLResponse) -> HTMLResponse:
    """Keep a page to its own scripts, and out of other pages."""
    scripts = [
        sha256(each.encode()).digest() for each in _INLINE.findall(bytes(page.body).decode())
    ]
    hashes = "".join(f" 'sha256-{base64.b64encode(each).decode()}'" for each in scripts)
    rules = {
        "default-src": "'none'",
        "script-src": f"{SOURCE}{hashes}",
        "style-src": f"{SOURCE} 'unsafe-inline'",  # both write styles while they run
        "img-src": "'self' data: https://cdn.redoc.ly",
        "font-src": "data:",
        "connect-src": "'self'",
        "worker-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in rules.items())
    page.headers["content-security-policy"] = policy
    return page


_DOCS = _with_rules(
    get_swagger_ui_html(openapi_url=_OPENAPI, title="Pacesetter", swagger_favicon_url=_NO_ICON)
)
_REDOC = _with_rules(
    get_redoc_html(
        openapi_url=_OPENAPI,
        title="Pacesetter",
        redoc_favicon_url=_NO_ICON,
        with_google_fonts=False,
    )
)
