"""Make a viewer's token for Prometheus, once, and keep it where Prometheus reads it.

Runs in the service's image, once each time the profile `scale` comes up.
"""

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

URL = "http://balancer:7070"
ADMIN = Path("/run/secrets/admin_token")
KEPT = Path("/data/token")
PATIENCE = 120.0
"""Seconds for which the service may be away."""

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def call(path: str, token: str, body: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Return the status and the body of an answer; while no replica is up, ask again."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, headers)  # noqa: S310 - of ours
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with _open(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or time.monotonic() > deadline:
                return error.code, error.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def main() -> None:
    """Keep the token that is there if it still holds, else make another one."""
    if KEPT.exists() and call("/v1/sessions?limit=1", KEPT.read_text())[0] == HTTPStatus.OK:
        return
    named = {"name": "prometheus", "role": "viewer"}
    status, body = call("/v1/tokens", ADMIN.read_text().strip(), named)
    if status >= HTTPStatus.BAD_REQUEST:
        raise SystemExit(f"no token for Prometheus: {status} {body.decode()}")
    KEPT.write_text(json.loads(body)["token"])
    # Prometheus is another user; the volume is mounted in these two containers alone.
    KEPT.chmod(0o444)
    KEPT.parent.chmod(0o755)


if __name__ == "__main__":
    main()
