"""Export and import: the whole record of a session, and its realised curve as a schedule."""

from collections.abc import AsyncIterator, Iterator
from typing import IO, Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from pacesetter_service.api.auth import refuse_name
from pacesetter_service.api.callers import answer, unless_gone
from pacesetter_service.api.context import AttemptQuery, Names, Service, SessionName
from pacesetter_service.api.gate import LINES
from pacesetter_service.api.openapi import answer_of
from pacesetter_service.api.sessions import SessionView, view
from pacesetter_service.catalogue.templates import parse_reference
from pacesetter_service.core.errors import ImportRefusedError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import Name
from pacesetter_service.runtime import exports
from pacesetter_service.runtime.exports import BUFFERED

router = APIRouter(prefix="/v1", tags=["record"])

CHUNK = 64 * 1024
"""How many bytes are sent at a time."""

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


@router.get(
    "/sessions/{name}/export",
    response_class=Response,
    responses=answer_of("NewSession", **{LINES: {"schema": {"type": "string"}}}),
)
async def export_session(
    name: SessionName,
    request: Request,
    service: Service,
    what: Annotated[Literal["record", "table"], Query(alias="as")] = "record",
    start: StepQuery = None,
    end: StepQuery = None,
    attempt: AttemptQuery = None,
) -> Response:
    """Return the whole record of a session, for `POST /v1/import`, or its realised curve.

    The record is lines of JSON: the session with its state, then its attempts, snapshots, events,
    sealed values, measurements and readings, then the number of lines and their SHA-256. It shows
    one moment, and includes the steps that a fork shares with other sessions.

    With `as=table` the answer is the body of a new session for `POST /v1/sessions` in which each
    series is a `table` of the values that were sealed from `start` to before `end`, to the bit, or
    of all steps if these are not given. A table has at most 100,000 levels; for more than about
    40,000, the server that takes it needs a larger `max-body-size`.
    """
    if what == "record":
        return _file(name, *await unless_gone(request, exports.export_record(service, name)))
    table = exports.export_table(service, name, start, end, attempt, to_json)
    return await answer(request, table)


def _file(name: str, file: IO[bytes], size: int) -> Response:
    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{name}.jsonl"',
    }
    return StreamingResponse(_chunks(file), headers=headers, media_type=LINES)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


@router.post(
    "/import",
    status_code=201,
    openapi_extra={
        "requestBody": {"required": True, "content": {LINES: {"schema": {"type": "string"}}}}
    },
)
async def import_session(
    request: Request,
    service: Service,
    response: Response,
    names: Names,
    name: Annotated[Name | None, Query(description="what it is to be called, if not as before")] = (
        None
    ),
) -> SessionView:
    """Restore a session from an answer of `GET /v1/sessions/{name}/export`.

    Its values, state, events and readings are the same to the bit, and so are its decisions from
    then on. The record is imported completely or not at all. A record that is not whole, was
    changed, has another version, or contains what no service would have written is refused with the
    line that shows it. A record with a law that no session could be created with is refused with
    the cost of the law. The template that it was made from must be one that the caller's token is
    for.
    """
    if name is not None:
        refuse_name(names, name, "name")
    with exports.temporary_file() as file:
        await _spool(request.stream(), file)
        record = await unless_gone(request, exports.examine_record(service, file, name))
        refuse_name(names, record.session.spec.name)
        if (template := record.session.spec.template) is not None:
            # It counts in the template's family from then on, and in plans that rest on it.
            refuse_name(names, parse_reference(template).name)
        info = await exports.import_record(service, file, record)  # finished once it is begun
    response.headers["location"] = f"/v1/sessions/{info.session.spec.name}"
    return view(info)


async def _spool(chunks: AsyncIterator[bytes], file: IO[bytes]) -> None:
    held = bytearray()
    try:
        async for chunk in chunks:
            held += chunk
            if len(held) >= BUFFERED:
                await run_in_threadpool(file.write, bytes(held))
                held.clear()
    except ClientDisconnect as error:  # the caller has gone
        raise ImportRefusedError("the connection broke off") from error
    await run_in_threadpool(file.write, bytes(held))
