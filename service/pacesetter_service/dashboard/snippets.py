"""How the same session is made elsewhere: in Python, with curl, and on the command line."""

import json
import shlex
from collections.abc import Mapping

from starlette.requests import Request

from pacesetter_service.core.spec import SessionSpec


def snippets_of(request: Request, spec: SessionSpec) -> Mapping[str, str]:
    """Return the text of each way to make a session with this spec, by what it is called."""
    said = spec.model_dump(mode="json", exclude_defaults=True)
    for field in ("origin", "forked_from", "earlier"):
        said.pop(field, None)
    address = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
    body = json.dumps(said, indent=2)
    fields = "".join(f"    {name}={value!r},\n" for name, value in said.items())
    return {
        "JSON": body,
        "Python": (
            "import pacesetter\n\n"
            f"client = pacesetter.Client({address!r})\n"
            f"client.create(\n{fields})\n"
        ),
        "curl": f"curl --json {shlex.quote(body)} {shlex.quote(address + '/v1/sessions')}",
    }
