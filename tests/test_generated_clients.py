"""Clients that are generated from the OpenAPI document are complete, and they work."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "generated"
"""A user's files: how to generate, and a program that uses what was generated."""

ON_CI = "CI" in os.environ


def run(*command: str, folder: Path, **environment: str) -> str:
    """Run a program to its end, and return its output."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


USED = """
import json, sys
from generated import Client
from generated.api.actions import take_action
from generated.api.sessions import create_session
from generated.api.values import sync_session
from generated.models import CosineSchedule, NewSession, ScaleAction, SyncRequest, Want

_, url, name = sys.argv
client = Client(base_url=url)
law = CosineSchedule(kind="cosine", total_steps=100)
made = create_session.sync(client=client, body=NewSession(name=name, base_lr=0.1, schedule=law))
order = take_action.sync(name, client=client, body=ScaleAction(kind="scale", factor=0.5))
wish = SyncRequest(want=Want(start=0, count=2))
window = sync_session.sync(name, client=client, body=wish)
refused = create_session.sync_detailed(client=client, body=NewSession(name="my run", base_lr=0.1))
print(json.dumps({
    "kind": made.spec.schedule.kind,
    "steps": made.spec.schedule.total_steps,
    "effective_step": order.effective_step,
    "lr": window.series["lr"],
    "status": int(refused.status_code),
    "code": refused.parsed.code,
    "pointer": refused.parsed.errors[0].pointer,
}))
"""
"""In Python, the same as `generated/client.ts` in TypeScript."""


def check(printed: Mapping[str, Any]) -> None:
    """Check that a session was created and changed, and a refusal parsed, with all types right."""
    lr = printed["lr"]
    assert lr[0] == 0.05
    assert lr[1] < lr[0]
    assert {key: each for key, each in printed.items() if key != "lr"} == {
        "kind": "cosine",
        "steps": 100,
        "effective_step": 0,
        "status": 422,
        "code": "validation_failed",
        "pointer": "/name",
    }


def test_a_python_client_is_generated_without_a_warning(
    server_url: str, unique_name: str, tmp_path: Path
) -> None:
    """openapi-python-client reads the whole document, and its client parses a real refusal."""
    said = run(
        *(sys.executable, "-m", "openapi_python_client", "generate"),
        *("--url", f"{server_url}/openapi.json", "--config", str(HERE / "config.yaml")),
        *("--meta", "none", "--output-path", "generated", "--fail-on-warning"),
        folder=tmp_path,
    )
    assert "warning" not in said.lower()
    (tmp_path / "use.py").write_text(USED)
    check(json.loads(run(sys.executable, "use.py", server_url, unique_name, folder=tmp_path)))


@pytest.mark.skipif(not ON_CI and shutil.which("npm") is None, reason="there is no npm here")
def test_a_typescript_client_is_generated_without_a_warning(
    server_url: str, unique_name: str, tmp_path: Path
) -> None:
    """openapi-typescript reads it, its types compile, and openapi-fetch parses a real refusal."""
    for file in ("package.json", "package-lock.json", "client.ts"):
        shutil.copy(HERE / file, tmp_path)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=tmp_path)
    document = f"{server_url}/openapi.json"
    options = ("--output", "schema.d.ts", "--default-non-nullable=false")
    said = run("npx", "openapi-typescript", document, *options, folder=tmp_path, NO_PROXY="*")
    assert "warn" not in said.lower()
    run(
        *("npx", "tsc", "client.ts", "--strict", "--skipLibCheck"),
        *("--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"),
        folder=tmp_path,
    )
    check(json.loads(run("node", "client.js", server_url, unique_name, folder=tmp_path)))
