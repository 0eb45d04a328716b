"""Name in a bill of materials what the wheel carries of other projects: `make sbom` runs this."""

import json
import sys
from pathlib import Path
from typing import Any

VENDORED = Path(__file__).parents[1] / "service/pacesetter_service/dashboard/static/vendored.json"


def added(bill: dict[str, Any], vendored: dict[str, Any]) -> dict[str, Any]:
    """Return a CycloneDX bill with the vendored libraries among its components.

    Args:
        bill: The bill.
        vendored: By the name of each library its version, licence, address, and files by digest.
    """
    components = [
        {
            "type": "library",
            "bom-ref": said["purl"],
            "name": name,
            "version": said["version"],
            "purl": said["purl"],
            "licenses": [{"license": {"id": said["license"]}}],
            "externalReferences": [{"type": "distribution", "url": said["source"]}],
            "components": [
                {
                    "type": "file",
                    "name": file,
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
                for file, digest in sorted(said["sha256"].items())
            ],
        }
        for name, said in sorted(vendored.items())
    ]
    return {**bill, "components": [*bill.get("components", []), *components]}


def main(path: Path) -> None:
    """Add them to the bill in a file."""
    bill = added(json.loads(path.read_text()), json.loads(VENDORED.read_text()))
    path.write_text(json.dumps(bill, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
