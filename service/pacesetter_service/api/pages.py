"""The description of the API: its OpenAPI document, and a page that shows it to people.

The whole page comes from here, so that it works without internet access. Its scripts are those of
Swagger UI; `assets/swagger-ui.json` has the version and the files.
"""

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

ASSETS = Path(__file__).with_name("assets")

SERVED = {
    "docs.js": ("docs.js", "text/javascript"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
}
"""By the name of a file beside the page: where the file is, and its media type."""

_RULES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_POLICY = "; ".join(f"{name} {value}" for name, value in _RULES.items())


# These are not `async`: making the document takes a second, and files are read.
@router.get("/openapi.json")
def read_description(request: Request) -> Response:
    """Return the OpenAPI document, which is made at the first call."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = to_json(request.app.openapi())
    return Response(state.description, media_type="application/json")


@router.get("/docs")
def show_docs() -> HTMLResponse:
    """Show every call, for trying it out; the page runs only its own scripts, in no frame."""
    page = (ASSETS / "docs.html").read_text()
    return HTMLResponse(page, headers={"content-security-policy": _POLICY})


@router.get("/docs/{asset}")
def read_asset(asset: str, request: Request) -> Response:
    """Return a file of that page, or 304 if the browser has it already."""
    if asset not in SERVED:
        raise HTTPException(404)
    path, media_type = SERVED[asset]
    content = (ASSETS / path).read_bytes()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
