"""How to create the same session elsewhere: from a file, in Python, by curl, by a command."""

import json
import shlex
from collections.abc import Mapping

from starlette.requests import Request

from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.dashboard.as_yaml import as_yaml


def snippets_of(request: Request, spec: SessionSpec) -> Mapping[str, str]:
    """Return the text of each way to create a session with this spec, by the name of the way."""
    said = spec.model_dump(mode="json", exclude_defaults=True)
    for field in ("origin", "forked_from", "earlier"):
        said.pop(field, None)
    address = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
    body = json.dumps(said, indent=2)
    named = {name: value for name, value in said.items() if name != "name"}
    fields = f"    {said['name']!r},\n"
    fields += "".join(f"    {name}={value!r},\n" for name, value in named.items())
    return {
        "JSON": body,
        "YAML": as_yaml(said),
        "Python": (
            f"from pacesetter import Client\n\nsession = Client({address!r}).session(\n{fields})\n"
        ),
        "Command line": f"pacesetter create -f - <<'END'\n{body}\nEND",
        "curl": f"curl --json {shlex.quote(body)} {shlex.quote(address + '/v1/sessions')}",
    }
