"""The format of an answer: by the parameter `format`, otherwise by the header `Accept`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Header, Query

CSV, SVG, JSON = "text/csv", "image/svg+xml", "application/json"

Format = Literal["json", "csv", "svg"]

MEDIA_TYPES: Mapping[Format, str] = {"json": JSON, "csv": CSV, "svg": SVG}

PictureQuery = Annotated[
    Literal["json", "svg"] | None,
    Query(alias="format", description="goes before the header `Accept`; JSON without both"),
]

FormatQuery = Annotated[
    Format | None,
    Query(alias="format", description="goes before the header `Accept`; JSON without both"),
]

Accept = Annotated[str, Header()]


def wanted(said: Format | None, accept: str, *others: Format) -> Format:
    """Return the format that a caller wants.

    Args:
        said: The parameter `format`; None if it is not given.
        accept: The header `Accept`.
        others: The formats that there are besides JSON.
    """
    if said is not None:
        return said
    return next((each for each in others if MEDIA_TYPES[each] in accept), "json")
