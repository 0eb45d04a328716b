"""What we ship of others is what they have published."""

import json
from hashlib import sha256

from pacesetter_service.dashboard.assets import FOLDER


def test_each_vendored_file_is_the_published_one() -> None:
    """Its digest, its licence and where it is from are named, and no other file lies beside it."""
    named = json.loads((FOLDER / "vendored.json").read_text())
    assert set(named) == {path.name for path in FOLDER.iterdir() if path.is_dir()}
    for library, said in named.items():
        found = {path.name: path for path in (FOLDER / library).iterdir()}
        assert set(found) == set(said["sha256"])
        for name, digest in said["sha256"].items():
            assert sha256(found[name].read_bytes()).hexdigest() == digest
        assert said["license"] in (found["LICENSE"].read_text())
        assert said["purl"].endswith(f"@{said['version']}")
