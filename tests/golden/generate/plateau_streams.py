"""The steps at which keras and optax change a rate under thousands of random metrics.

Run it in the environment of either: `python plateau_streams.py keras`.
"""

import json
import os
import runpy
import sys
from importlib.metadata import version
from pathlib import Path

# The generators beside this one are named like the libraries that they import.
sys.path.append(sys.path.pop(0))

import streams

os.environ["KERAS_BACKEND"] = "numpy"

OUT = Path(__file__).parents[1] / "plateau_streams"


def main() -> None:
    """Write the steps, a list for each stream."""
    [_, library] = sys.argv
    generator = Path(__file__).with_name(f"{library}.py")
    under_a_plateau = runpy.run_path(str(generator), run_name="generator")["under_a_plateau"]
    steps = []
    for number in range(streams.COUNT):
        spec = getattr(streams, library)(number)
        rates = under_a_plateau(spec, streams.metrics(number))
        steps.append([s for s in range(1, len(rates)) if rates[s] != rates[s - 1]])
    OUT.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(each) for each in steps)
    head = json.dumps({"library": library, "version": version(library)})[:-1]
    (OUT / f"{library}.json").write_text(f'{head}, "steps": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
