"""The API tested by Schemathesis: every operation that its document names, and sequences.

`python tests/proof/fuzz.py` runs all phases with all checks, with a token and without. Exceptions,
and their reasons, are in `ALLOWED`, `LEFT_OUT` and `LEAVES`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import httpx

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from serving import PATIENCE, RunningService  # noqa: E402 - found by the lines above

TOKEN = "an-admin-token-of-these-tests"
TOKENS = (TOKEN, "")
PHASES = "examples,coverage,fuzzing,stateful"

ALLOWED = """
# 422: fields contradict each other in ways that no schema says (`base_lr` or `groups`); to a schema
# 1.0 is a whole number, and to the service it is none; a text may have no character that controls
# how it is shown; a step may lie beyond the horizon. 400: no text has %00. 414, 431: an address has
# a limit of its own, of all its parameters together. 503: a step may await a measurement.
[checks.positive_data_acceptance]
expected-statuses = [
  "2xx", "400", "401", "403", "404", "409", "414", "422", "429", "431", "503", "507",
]

# 414, 431: as above; they are refusals.
[checks.negative_data_rejection]
expected-statuses = [
  "400", "401", "403", "404", "405", "409", "413", "414", "415", "422", "429", "431",
]
"""
"""Answers besides 200 to a call that is valid by the document's schema."""

LEFT_OUT = "stream|import"
"""Paths that are not called: a stream does not end, and a record is not JSON; both have tests."""


LEAVES = {"Schedule": "ConstantSchedule", "Predicate": "AbovePredicate", "Ease": "LinearEase"}
"""What a tree within a tree is in the phase `coverage`, which tries each bound of each field of
each kind: with every kind within every kind it would not end.
"""

WHOLE = {"NewSession", "SessionSpec", "GroupSpec", "PreviewRequest", "LintRequest", "ReplaceAction"}
"""Models whose trees stay whole."""


SCHEMAS = "#/components/schemas/"
CUT = "Cut"
"""What the names of cut schemas begin with."""


def shallow(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document in which a tree within a tree of a body is a leaf.

    The other phases draw deeper trees by chance. What answers may be stays as it is.
    """
    schemas = document["components"]["schemas"]
    bodies = {
        f"{CUT}{name}": _cut(each, {} if name in WHOLE else LEAVES)
        for name, each in schemas.items()
    }
    paths = {
        path: {method: _with_cut_body(each) for method, each in calls.items()}
        for path, calls in document["paths"].items()
    }
    components = {**document["components"], "schemas": {**schemas, **bodies}}
    return {**document, "paths": paths, "components": components}


def _with_cut_body(call: Any) -> Any:
    if not isinstance(call, dict) or "requestBody" not in call:
        return call
    return {**call, "requestBody": _cut(call["requestBody"], {})}


def _cut(schema: Any, leaves: Mapping[str, str]) -> Any:
    """Return a schema that refers to cut ones alone, and to leaves in place of trees."""
    if isinstance(schema, list):
        return [_cut(each, leaves) for each in schema]
    if isinstance(schema, dict):
        return {key: _cut(value, leaves) for key, value in schema.items()}
    if not isinstance(schema, str) or not schema.startswith(SCHEMAS):
        return schema
    name = schema.removeprefix(SCHEMAS)
    return f"{SCHEMAS}{CUT}{leaves.get(name, name)}"


def parted(phases: str) -> list[str]:
    """Return phases, of which `coverage` is apart: it has another document than the others."""
    wanted = phases.split(",")
    rest = ",".join(each for each in wanted if each != "coverage")
    return [each for each in ("coverage" if "coverage" in wanted else "", rest) if each]


def fuzz(
    folder: Path,
    *,
    examples: int,
    phases: str = PHASES,
    token: str = TOKEN,
    only: str = "",
    shows: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Attack a separate service; return the exit code of Schemathesis, 0 for nothing found.

    Args:
        folder: Where the service has its database.
        examples: How many examples of each operation are tried.
        phases: Which of Schemathesis' phases are run: `coverage` alone, or others.
        token: The service's and the caller's; without one the service requires none.
        only: A pattern of the paths that are called; all others if not given.
        shows: Whether Schemathesis says what it does as it does it, and not in what is returned.
    """
    settings = {"admin_token": token} if token else {}
    (folder / "schemathesis.toml").write_text(ALLOWED)
    with RunningService(folder / "pacesetter.db", **settings) as service:
        document = folder / "openapi.json"
        found = httpx.get(f"{service.url}/openapi.json", timeout=PATIENCE).json()
        document.write_text(json.dumps(shallow(found) if phases == "coverage" else found))
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(document)]
        command += ["--url", service.url, "--no-color", "--continue-on-failure"]
        command += ["--phases", phases, "--checks", "all", "--max-examples", str(examples)]
        command += ["--exclude-path-regex", LEFT_OUT]
        command += ["--include-path-regex", only] if only else []
        command += ["--request-timeout", str(int(PATIENCE))]
        command += ["-H", f"Authorization: Bearer {token}"] if token else []
        return subprocess.run(command, capture_output=not shows, text=True, check=False, cwd=folder)


def main() -> None:
    """Run all phases with a token and without, and exit with 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--phases", default=PHASES)
    parser.add_argument("--only", default="", help="a pattern of paths")
    options = parser.parse_args()
    failed = 0
    for phases, token in product(parted(options.phases), TOKENS):
        with tempfile.TemporaryDirectory() as folder:
            how = {"examples": options.examples, "phases": phases, "only": options.only}
            print(f"{phases}, with {'a' if token else 'no'} token:", flush=True)
            done = fuzz(Path(folder), token=token, shows=True, **how)
        failed += done.returncode
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
