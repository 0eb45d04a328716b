"""The files that pages load: styles, scripts and the icon, each at an address with its digest."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"

TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
"""Media types by the suffix of a file; other files are not served."""

FOR_EVER = "public, max-age=31536000, immutable"

DIGITS = 12
"""How many digits of a digest are in an address: enough to distinguish versions."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served.

    Attributes:
        name: Its path below the folder.
        media_type: Its media type.
        digest: The first digits of its SHA-256.
        plain: Its bytes.
        zipped: Its bytes, compressed.
    """

    name: str
    media_type: str
    digest: str
    plain: bytes
    zipped: bytes

    @property
    def path(self) -> str:
        """Its address, without the leading slash."""
        return f"static/{self.digest}/{self.name}"


def _read() -> dict[str, Asset]:
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            name, plain = path.relative_to(FOLDER).as_posix(), path.read_bytes()
            digest = sha256(plain).hexdigest()[:DIGITS]
            zipped = gzip.compress(plain, 9, mtime=0)
            found[name] = Asset(name, TYPES[path.suffix], digest, plain, zipped)
    return found


ASSETS: Mapping[str, Asset] = _read()
"""All files, by name."""


async def show_asset(request: Request) -> Response:
    """Answer with a file: cacheable for ever under its own digest, but not under another one."""
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        return Response("There is no such file.\n", 404, media_type="text/plain")
    current = request.path_params["digest"] == asset.digest
    headers = {
        "etag": f'"{asset.digest}"',
        # Another version of the service, at the same address, may have named this digest.
        "cache-control": FOR_EVER if current else "no-cache",
        "vary": "accept-encoding",
    }
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    if takes_gzip(request):
        headers["content-encoding"] = "gzip"
        return Response(asset.zipped, headers=headers, media_type=asset.media_type)
    return Response(asset.plain, headers=headers, media_type=asset.media_type)


def takes_gzip(request: Request) -> bool:
    """Return whether the caller can read a compressed answer."""
    said = request.headers.get("accept-encoding", "")
    return any(each.strip() == "gzip" for each in said.split(","))
