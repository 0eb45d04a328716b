"""Export and import: the whole record of a session, and its realised curve as a schedule."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from pacesetter_service import __version__
from pacesetter_service.api import wire
from pacesetter_service.api.context import Context, Service, SessionName
from pacesetter_service.api.gate import LINES
from pacesetter_service.api.lives import AttemptQuery, Lived, lived, sealed_values
from pacesetter_service.api.sessions import SessionView, view
from pacesetter_service.core.errors import (
    ImportRefusedError,
    PacesetterError,
    StepOutOfRangeError,
)
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.schedules.tables import MAX_TABLE
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import Name
from pacesetter_service.storage import transfer
from pacesetter_service.storage.store import Store

router = APIRouter(prefix="/v1", tags=["record"])

CHUNK = 64 * 1024
"""How many bytes are sent at once."""

BUFFERED = 1024 * 1024
"""How many bytes of a record are held in memory before they go to a temporary file."""

BATCH = 8
"""How many lines of a record are written in one transaction: nobody is to wait for a large one."""

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


@router.get(
    "/sessions/{name}/export",
    response_class=Response,
    responses={
        200: {
            "content": {
                LINES: {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
            }
        }
    },
)
async def export_session(
    name: SessionName,
    service: Service,
    what: Annotated[Literal["record", "table"], Query(alias="as")] = "record",
    start: StepQuery = None,
    end: StepQuery = None,
    attempt: AttemptQuery = None,
) -> Response:
    """Give the whole record of a session, for `POST /v1/import`, or its realised curve.

    The record is lines of JSON: the session with its state, then its attempts, snapshots, events,
    sealed values, measurements and readings, then how many lines there were and their SHA-256. It
    is of one moment, and what a fork shares with other sessions is in it.

    With `as=table` the answer is the body of a new session for `POST /v1/sessions` in which each
    series is a `table` of the values that were sealed from `start` to before `end`, to the bit; of
    all steps, if these are not given. A table has at most 100,000 levels, and for more than about
    40,000 the server that takes them needs a larger `max-body-size`.
    """
    entry = await service.ledger.find(name)
    if what == "record":
        return await _record(service.store, name)
    life = await lived(service, entry, attempt)
    first = life.start if start is None else start
    last = life.end if end is None else end
    return Response(
        await run_in_threadpool(_replay, service.store, entry.stored.session, life, first, last),
        media_type="application/json",
    )


async def _record(store: Store, name: str) -> Response:
    file, size = await run_in_threadpool(_exported, store, name)
    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{name}.jsonl"',
    }
    return StreamingResponse(_chunks(file), headers=headers, media_type=LINES)


def _exported(store: Store, name: str) -> tuple[IO[bytes], int]:
    """Write a record into a file of its own: a slow caller is not to hold the database's log."""
    file = tempfile.SpooledTemporaryFile(BUFFERED)  # noqa: SIM115 - closed once it is sent
    try:
        with store.moment() as connection:
            for line in transfer.export(connection, name, __version__):
                file.write(line)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)
    return file, size


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


def _replay(store: Store, session: Session, life: Lived, start: int, end: int) -> bytes:
    """Write a session whose schedule is the realised curve of another one."""
    spec, count = session.spec, end - start
    if count < 1 or count > MAX_TABLE:
        raise StepOutOfRangeError(
            f"The steps from {start} to before {end} are {max(count, 0)}; a table has 1 to"
            f" {MAX_TABLE} levels. Ask for a part with `start` and `end`, or take the whole record"
            " (without `as=table`) to POST /v1/import, which knows no such limit."
        )
    series = spec.series()
    wire.refuse_too_many(len(series), count)
    block = sealed_values(store, life, len(series), start, end)
    laws: dict[str, dict[str, Any]] = {}
    for each, levels in zip(series, block, strict=True):
        laws.setdefault(each.group, {})[each.channel] = _table(levels.tolist(), start)
    schedules = {group: _of_channels(channels) for group, channels in laws.items()}
    body: dict[str, Any] = {"name": f"{spec.name[:120]}-replay"}
    if spec.groups is None:
        body |= {"base_lr": spec.base_lr, "schedule": schedules[""]}
    else:
        body["groups"] = {
            group: {"base_lr": spec.groups[group].base_lr, "schedule": schedule}
            for group, schedule in schedules.items()
        }
    return to_json({**body, "start_step": start, "total_steps": end, "ranks": spec.ranks})


def _table(levels: list[float], start: int) -> dict[str, Any]:
    table = {"kind": "table", "levels": levels}
    # A session's clock reads the step, wherever it starts; a table begins where it reads 0.
    return {"kind": "delay", "by": start, "schedule": table} if start else table


def _of_channels(laws: dict[str, Any]) -> dict[str, Any]:
    schedule: dict[str, Any] = laws["lr"] if len(laws) == 1 else {"kind": "channels", "laws": laws}
    return schedule


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
    name: Annotated[Name | None, Query(description="what it is to be called, if not as before")] = (
        None
    ),
) -> SessionView:
    """Restore a session from what `GET /v1/sessions/{name}/export` answered.

    Its values, state, events and readings are the same to the bit, and so is whatever it decides
    from then on. All of it is kept, or nothing: a record that is not whole, was changed, or is of
    another version is refused with the line at which that shows.
    """
    with tempfile.SpooledTemporaryFile(BUFFERED) as file:
        await _spool(request.stream(), file)
        record = await run_in_threadpool(transfer.examine, file, name)
        await _write(service, file, record)
    stored = (await service.ledger.find(record.session.spec.name)).stored
    response.headers["location"] = f"/v1/sessions/{stored.session.spec.name}"
    return view(stored)


async def _spool(chunks: AsyncIterator[bytes], file: IO[bytes]) -> None:
    held = bytearray()
    try:
        async for chunk in chunks:
            held += chunk
            if len(held) >= BUFFERED:
                await run_in_threadpool(file.write, bytes(held))
                held.clear()
    except ClientDisconnect as error:  # nobody is there to read the answer
        raise ImportRefusedError("the connection broke off") from error
    await run_in_threadpool(file.write, bytes(held))


async def _write(service: Context, file: IO[bytes], record: transfer.Record) -> None:
    """Write a record in many small transactions between those of everybody else."""
    ledger = service.ledger
    number = await ledger.call(partial(_begin, record=record))
    rows = transfer.rows_of(file, record)
    try:
        while batch := await run_in_threadpool(lambda: list(islice(rows, BATCH))):
            await ledger.call(partial(_add, number=number, batch=batch))
        await ledger.call(partial(_finish, number=number, record=record))
    except BaseException:
        # If even this fails, it is done when the service starts again.
        with suppress(PacesetterError):
            await ledger.call(partial(_drop, number=number))
        raise


def _begin(store: Store, *, record: transfer.Record) -> int:
    number = store.new_id()
    with store.transaction() as connection:
        transfer.refuse_taken(connection, record.session.spec.name)
        transfer.begin(connection, number, record)
    return number


def _add(store: Store, *, number: int, batch: list[transfer.Rows]) -> None:
    with store.transaction() as connection:
        transfer.add(connection, number, batch)


def _finish(store: Store, *, number: int, record: transfer.Record) -> None:
    with store.transaction() as connection:
        transfer.finish(connection, number, record.session)


def _drop(store: Store, *, number: int) -> None:
    with store.transaction() as connection:
        transfer.drop(connection, number)
