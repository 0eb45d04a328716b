"""Third-party files are shipped exactly as they were published."""

import json
import runpy
from hashlib import sha256
from pathlib import Path

from pacesetter_service.dashboard.assets import FOLDER

ADD = Path(__file__).parents[2] / "docs/add_vendored.py"


def test_each_vendored_file_is_the_published_one() -> None:
    """Its digest, its licence and its source are listed, and there is no other file beside it."""
    named = json.loads((FOLDER / "vendored.json").read_text())
    assert set(named) == {path.name for path in FOLDER.iterdir() if path.is_dir()}
    for library, said in named.items():
        found = {path.name: path for path in (FOLDER / library).iterdir()}
        assert set(found) == set(said["sha256"])
        for name, digest in said["sha256"].items():
            assert sha256(found[name].read_bytes()).hexdigest() == digest
        assert said["license"] in (found["LICENSE"].read_text())
        assert said["purl"].endswith(f"@{said['version']}")


def test_the_bill_of_materials_names_what_is_vendored() -> None:
    """It adds each library with its address and its files."""
    named = json.loads((FOLDER / "vendored.json").read_text())
    before = {"bomFormat": "CycloneDX", "components": [{"name": "numpy"}]}
    bill = runpy.run_path(str(ADD))["added"](before, named)
    assert [each["name"] for each in bill["components"]] == ["numpy", *sorted(named)]
    uplot = bill["components"][1]
    assert uplot["purl"] == "pkg:npm/uplot@1.6.32"
    assert {each["name"] for each in uplot["components"]} == set(named["uplot"]["sha256"])
