"""Check the model of sealing, versions and attempts exhaustively; see README.md beside this file.

`python docs/model/check.py` is the long form; `--short` is the one that the tests run.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("sealing.pml")

FAULTS = {
    "NO_VERSION_COMPARE": "a writer that does not compare versions",
    "NO_FENCE": "an old attempt that seals and reports",
    "ANSWER_BEFORE_COMMIT": "a value that is given out before its commit",
    "COUNT_AGAIN": "a reading that counts again when it is repeated",
    "ORDER_BELOW_HORIZON": "an order for a step that is sealed",
    "RESUME_BY_NEWEST_LAW": "an attempt that begins with the newest law in place of its step's",
    "LOOK_WITHOUT_CHECK": "a replica that shows what it remembers, without a look at the version",
}
"""What can be seeded in the model, by the name behind `MUTATE_`; each must be found."""

SHORT = {"REPLICAS": 2, "STEPS": 1, "ATTEMPTS": 2, "ORDERS": 1}
LONG = {"REPLICAS": 2, "STEPS": 2, "ATTEMPTS": 2, "ORDERS": 1}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an exhaustive search has come to.

    Attributes:
        states: How many states were visited.
        complete: Whether those are all that can be reached.
        violated: The assertion that failed; empty if none did.
    """

    states: int
    complete: bool
    violated: str


def tools_are_here() -> bool:
    """Return whether Spin and a C compiler are installed."""
    return bool(shutil.which("spin") and shutil.which("gcc"))


def search(sizes: dict[str, int], fault: str = "") -> Verdict:
    """Visit every state that can be reached, until an assertion fails.

    Args:
        sizes: How many replicas, steps, attempts and orders there are.
        fault: One of `FAULTS` to seed; none for the model of what the service does.
    """
    defined = [f"-D{name}={number}" for name, number in sizes.items()]
    defined += [f"-DMUTATE_{fault}"] if fault else []
    with tempfile.TemporaryDirectory() as folder:
        _run(["spin", "-a", *defined, str(MODEL)], folder)
        # -w: the C that Spin writes is not ours to be warned about.
        options = ["-O2" if not fault else "-O0", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048"]
        _run(["gcc", *options, "-o", "pan", "pan.c"], folder)
        said = _run(["./pan", "-m2000000", "-n"], folder)
    [states] = re.findall(r"([\d.e+]+) states, stored", said)
    failed = re.findall(r"assertion violated (.*) \(at depth", said)
    incomplete = "Search not completed" in said or "max search depth too small" in said
    return Verdict(int(float(states)), not incomplete, failed[0] if failed else "")


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} has failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Check the model, and that every seeded fault is found; exit with 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    sizes = SHORT if parser.parse_args().short else LONG
    if not tools_are_here():
        raise SystemExit("Spin and gcc are needed: apt-get install spin gcc")
    print("sizes:", ", ".join(f"{number} {name.lower()}" for name, number in sizes.items()))
    found = search(sizes)
    sound = found.complete and not found.violated
    print(f"the service: {found.states:,} states, {found.violated or 'no promise broken'}")
    for fault, what in FAULTS.items():
        seeded = search(SHORT, fault)
        sound = sound and bool(seeded.violated)
        print(f"{what}: {seeded.violated or 'NOT FOUND'} ({seeded.states:,} states)")
    raise SystemExit(not sound)


if __name__ == "__main__":
    main()
