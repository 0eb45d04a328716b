"""The API under the fire of Schemathesis: every operation that its document names, and sequences.

`python tests/proof/fuzz.py` runs all phases with all checks, and prints what it has found, faults
of the document too; with `--strict` only what no service may do is a failure: an answer of 5xx, or
an answer to a caller without a token that needs one.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from serving import RunningService

TOKEN = "an-admin-token-of-these-tests"
PHASES = "examples,coverage,fuzzing,stateful"
STRICT = "not_a_server_error,ignored_auth,use_after_free"


def fuzz(
    folder: Path, *, examples: int, phases: str = PHASES, checks: str = "all", token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Have a service of its own attacked; returns what Schemathesis says, 0 for nothing found.

    Args:
        folder: Where the service has its database.
        examples: How many examples of each operation are tried.
        phases: Which of Schemathesis' phases are run.
        checks: Which of its checks.
        token: The service's and the caller's; without one the service asks for none.
    """
    settings = {"admin_token": token} if token else {}
    with RunningService(folder / "pacesetter.db", **settings) as service:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run"]
        command += [f"{service.url}/openapi.json", "--no-color", "--continue-on-failure"]
        command += ["--phases", phases, "--checks", checks, "--max-examples", str(examples)]
        # A stream does not end, and a record is no JSON: both have tests of their own.
        command += ["--exclude-path-regex", "stream|import"]
        command += ["-H", f"Authorization: Bearer {token}"] if token else []
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def main() -> None:
    """Run all phases with a token and without, and exit with 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--strict", action="store_true", help="faults of the document are none")
    options = parser.parse_args()
    failed = 0
    for token in (TOKEN, ""):
        with tempfile.TemporaryDirectory() as folder:
            checks = STRICT if options.strict else "all"
            done = fuzz(Path(folder), examples=options.examples, checks=checks, token=token)
        print(f"with {'a' if token else 'no'} token:\n{done.stdout}{done.stderr}")
        failed += done.returncode
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
