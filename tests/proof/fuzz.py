"""The API tested by Schemathesis: every operation that its document names, and sequences.

`python tests/proof/fuzz.py` runs all phases with all checks, with a token and without. Exceptions,
and their reasons, are in `ALLOWED` and `LEFT_OUT`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from serving import PATIENCE, RunningService  # noqa: E402 - found by the lines above

TOKEN = "an-admin-token-of-these-tests"
PHASES = "examples,coverage,fuzzing,stateful"

ALLOWED = """
# 422: fields contradict each other in ways that no schema says (`base_lr` or `groups`); to a schema
# 1.0 is a whole number, and to the service it is none; a text may have no character that controls
# how it is shown; a step may lie beyond the horizon. 414: an address has a limit of its own, of
# all its parameters together. 503: a step may await a measurement.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "414", "422", "429", "503", "507"]

# 414: as above; it is a refusal.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "414", "415", "422", "429"]
"""
"""Answers besides 200 to a call that is valid by the document's schema."""

LEFT_OUT = "stream|import"
"""Paths that are not called: a stream does not end, and a record is not JSON; both have tests."""


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
        phases: Which of Schemathesis' phases are run.
        token: The service's and the caller's; without one the service requires none.
        only: A pattern of the paths that are called; all others if not given.
        shows: Whether Schemathesis says what it does as it does it, and not in what is returned.
    """
    settings = {"admin_token": token} if token else {}
    (folder / "schemathesis.toml").write_text(ALLOWED)
    with RunningService(folder / "pacesetter.db", **settings) as service:
        document = folder / "openapi.json"
        document.write_text(httpx.get(f"{service.url}/openapi.json", timeout=PATIENCE).text)
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
    for token in (TOKEN, ""):
        with tempfile.TemporaryDirectory() as folder:
            how = {"examples": options.examples, "phases": options.phases, "only": options.only}
            print(f"with {'a' if token else 'no'} token:", flush=True)
            done = fuzz(Path(folder), token=token, shows=True, **how)
        failed += done.returncode
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
