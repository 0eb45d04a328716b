"""The files in deploy/ as the tests read them."""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacesetter_service.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

Manifest = Mapping[str, Any]


def documents(text: str) -> list[Manifest]:
    """Return the documents of a YAML file."""
    return [each for each in yaml.safe_load_all(text) if each]


@functools.cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return what Kustomize makes of an overlay; skip the test where it is not installed."""
    for program, command in (("kustomize", "build"), ("kubectl", "kustomize")):
        if shutil.which(program):
            folder = KUBERNETES / "overlays" / overlay
            done = subprocess.run(
                [program, command, folder], capture_output=True, text=True, check=True
            )
            return tuple(documents(done.stdout))
    pytest.skip("neither kustomize nor kubectl is installed")


def pod_of(manifest: Manifest) -> Manifest | None:
    """Return the pod template of a workload; None if it is none."""
    template: Manifest | None = manifest.get("spec", {}).get("template")
    return template


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """Return every mapping in a document, at any depth."""
    if isinstance(value, Mapping):
        yield value
        for each in value.values():
            yield from mappings(each)
    elif isinstance(value, list):
        for each in value:
            yield from mappings(each)


OF_CLIENTS = {"URL", "TOKEN", "RUN", "RESTART"}
OF_SCRIPTS = {"STATE", "SCRATCH", "COPY_EVERY", "TOKEN_FILE", "BIND"}
OF_SERVICE = {"INSECURE", "TLS_CERT"}


def unknown_settings(text: str) -> set[str]:
    """Return the variables in a text that are named as ours and that the service does not read."""
    settings = {name.upper() for name in Settings.model_fields}
    by_file = {f"{name}_FILE" for name in settings}
    known = settings | by_file | OF_CLIENTS | OF_SCRIPTS | OF_SERVICE
    return set(re.findall(r"\bPACESETTER_(\w+)", text)) - known
