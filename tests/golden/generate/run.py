"""Write golden values anew: `python tests/golden/generate/run.py timm optax`; all with no name.

Each generator gets a separate virtual environment under `build/golden`, with what its header
pins: `# requires: timm==1.0.31 torch==2.13.0`, and on a line `# requires-no-deps:` what must be
installed without what it depends on. `--python` takes an environment that is there already.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[2] / "build" / "golden"

# A generator has the name of its library: its folder goes last, or it would import itself.
LAUNCH = """
import runpy, sys
sys.path.append(sys.argv[1])
runpy.run_path(sys.argv[2], None, "__main__")
"""


def pinned(generator: Path, label: str) -> list[str]:
    """Return the requirements that a generator's header has under a label."""
    lines = re.findall(rf"^# {label}: (.+)$", generator.read_text(), re.MULTILINE)
    return [requirement for line in lines for requirement in line.split()]


def environment(generator: Path) -> Path:
    """Make the virtual environment of a generator, if it is not there, and give its python."""
    home = ENVIRONMENTS / generator.stem
    python = home / "bin" / "python"
    ready = home / "ready"
    wanted = pinned(generator, "requires")
    bare = pinned(generator, "requires-no-deps")
    if ready.exists() and ready.read_text().split() == [*wanted, *bare]:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    # torch first and pinned: asked for by another package it may come as a CUDA build.
    first = [requirement for requirement in wanted if requirement.startswith("torch==")]
    for options in (first, wanted, ["--no-deps", *bare] if bare else []):
        if options:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *options], check=True)
    ready.write_text(" ".join([*wanted, *bare]))
    return python


def generate(library: str, python: Path | None) -> None:
    """Run the generator of one library."""
    generator = HERE / f"{library}.py"
    if not generator.exists():
        raise SystemExit(f"There is no generator {generator}")
    interpreter = python or environment(generator)
    command = [str(interpreter), "-P", "-c", LAUNCH, str(HERE), str(generator)]
    subprocess.run(command, check=True)


def main() -> None:
    """Run the generators that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("libraries", nargs="*", help="names of generators in this folder")
    parser.add_argument("--python", type=Path, help="an interpreter that has the library")
    chosen = parser.parse_args()
    every = sorted({path.stem for path in HERE.glob("*.py")} - {"common", "run"})
    for library in chosen.libraries or every:
        generate(library, chosen.python)


if __name__ == "__main__":
    main()
