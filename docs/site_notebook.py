"""A notebook as a page of the site: its text, its code, and what its cells showed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def page(path: Path) -> str:
    """Return a notebook as Markdown."""
    parts: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts += _shown(output)
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    """Yield what a cell showed: as HTML or a picture where there is one, else as text."""
    data = output.get("data", {})
    if "text/html" in data:
        yield "".join(data["text/html"]).replace("\n", " ")
    elif "image/png" in data:
        yield f'<img alt="what the cell draws" src="data:image/png;base64,{data["image/png"]}">'
    else:
        text = "".join(output.get("text") or data.get("text/plain", []))
        yield f"```text\n{text.rstrip()}\n```"
