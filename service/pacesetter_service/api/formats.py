"""In which form an answer is wanted: by `format` in the address, else by the `Accept` header."""

from collections.abc import Iterable

CSV = "text/csv"
JSON = "application/json"
SVG = "image/svg+xml"

MEDIA_TYPES = {"csv": CSV, "json": JSON, "svg": SVG}
"""By what `format` calls them."""


def wanted(form: str | None, accept: str, among: Iterable[str]) -> str:
    """Return the media type that is wanted: the one named, else one that is accepted, else JSON.

    Args:
        form: What `format` says; None if it is not there.
        accept: The `Accept` header.
        among: The media types that there are, besides JSON.
    """
    if form is not None:
        return MEDIA_TYPES[form]
    return next((each for each in among if each in accept), JSON)
