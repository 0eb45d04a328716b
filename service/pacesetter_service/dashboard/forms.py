"""Forms as browsers send them: read strictly, and within bounds."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

LONGEST = 1_048_576
"""The most bytes of a form."""

MOST_FIELDS = 1_000

FORM = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; if a field comes twice, its last value.

    Raises:
        HTTPException: It is too long, or not a form.
    """
    return dict(await read_fields(request))


async def read_fields(request: Request) -> list[tuple[str, str]]:
    """Return the fields of a form in order.

    Raises:
        HTTPException: It is too long, or not a form.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is too long.")
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and said != FORM:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send the form as {FORM}.")
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from error


def filled(form: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return those of the named fields that are filled in, without surrounding blanks."""
    said = {name: form.get(name, "").strip() for name in names}
    return {name: text for name, text in said.items() if text}


def status_of(form: Mapping[str, str], *, wrong: bool) -> HTTPStatus:
    """Return the status of the page that answers a form.

    A mistake in a form is an error, unless a script checks the form while it is being filled in:
    browsers write errors into their consoles.
    """
    refused = wrong and form.get("do") != "rehearse"
    return HTTPStatus.UNPROCESSABLE_ENTITY if refused else HTTPStatus.OK
