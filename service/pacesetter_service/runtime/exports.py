"""Export and import: the whole record of a session, and its realised curve as a schedule."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EMFILE, ENFILE, ENOSPC
from functools import partial
from itertools import islice
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from pacesetter_service import __version__
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import (
    NoTableError,
    NoTemporaryFileError,
    PacesetterError,
    StorageFullError,
)
from pacesetter_service.core.schedules.tables import MAX_TABLE
from pacesetter_service.core.session import Session
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.attempt_ranges import (
    AttemptRange,
    range_of,
    sealed_values,
)
from pacesetter_service.runtime.service import Service, SessionInfo, info_of
from pacesetter_service.runtime.windows import refuse_too_many
from pacesetter_service.store import record
from pacesetter_service.store.record import Record
from pacesetter_service.store.store import Store

BUFFERED = 1024 * 1024
"""How many bytes of a record are kept in memory before they go to a temporary file."""

BATCH = 8
"""Lines of a record that are written in one transaction: few, so that no trainer waits long."""

P = ParamSpec("P")
T = TypeVar("T")


async def export_record(service: Service, name: str) -> tuple[IO[bytes], int]:
    """Return a file with the whole record of a session, and its size; the caller closes it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        BusyError: Too many costly answers are being prepared already.
        StorageUnavailableError: The database, or a temporary file, cannot be used.
    """
    await service.writer.find(name)
    return await service.reads.run(lambda check: _exported(service.store, name, check))


async def export_table(
    service: Service,
    name: str,
    start: int | None,
    end: int | None,
    attempt: int | None,
    show: Callable[[dict[str, Any]], T],
) -> T:
    """Return what `show` makes of a spec whose schedule is the realised curve of a session.

    Args:
        service: The service.
        name: The session's name.
        start: The first step of the curve; None for the session's first.
        end: The first step after the curve; None for all sealed steps.
        attempt: An earlier attempt; None for the running one.
        show: Makes the answer from the spec, on the same thread.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt.
        StepOutOfRangeError: The attempt has not sealed these steps.
        NoTableError: They are too many for a table, or none.
        BusyError: Too many costly answers are being prepared already.
    """
    entry = await service.writer.find(name)
    ref = await range_of(service, entry, attempt)
    first = ref.start if start is None else start
    last = ref.end if end is None else end
    session = entry.stored.session
    return await service.reads.run(
        lambda _check: show(_replay(service.store, session, ref, first, last))
    )


async def examine_record(service: Service, file: IO[bytes], name: str | None) -> Record:
    """Check a record for consistency and return it; its session may be given another name.

    Raises:
        ImportRefusedError: The file is not a whole record.
        BusyError: Too many large requests are being checked already.
    """
    return await service.checks.run(lambda check: record.examine(file, name, check))


async def import_record(service: Service, file: IO[bytes], examined: Record) -> SessionInfo:
    """Write an examined record, completely or not at all, and return its session.

    It is written in many small transactions between those of the trainers.

    Raises:
        NameTakenError: There is a session of that name.
        ImportRefusedError: The file is not a whole record.
        StorageUnavailableError: The database did not answer. If nothing is known of the last
            commit, which makes the session visible, the session is there or not, but whole.
    """
    store, call = service.store, service.writer.call
    number = await call(store.new_id)
    written = partial(_written, store)
    await call(partial(written, record.begin, number, examined))
    rows = record.rows_of(file, examined)
    try:
        while batch := await in_thread(lambda: list(islice(rows, BATCH))):
            await call(partial(written, record.add, number, batch))
        await call(partial(written, record.finish, number, examined.session))
    except BaseException:
        # Whether the last step was taken may be unknown: if it was, the session stays. If even
        # this fails, the next start of the service or the janitor does it.
        with suppress(PacesetterError):
            await call(partial(_dropped, store, number))
        raise
    return info_of(service, (await service.writer.find(examined.session.spec.name)).stored)


@contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """Return a file for a record; what is wrong with it is the service's own error.

    Raises:
        StorageFullError: There is no room for it.
        NoTemporaryFileError: It cannot be used for another reason.
    """
    with _file_errors(), tempfile.SpooledTemporaryFile(BUFFERED) as file:
        yield file


@contextmanager
def _file_errors() -> Iterator[None]:
    """Turn the errors of temporary files into the service's own."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a time that is over, which is no matter of files
            raise
        if error.errno in (ENOSPC, EDQUOT, EFBIG):
            raise StorageFullError("the disk of temporary files (TMPDIR)") from error
        reached = error.errno in (EMFILE, ENFILE)
        raise NoTemporaryFileError(str(error.strerror), limit_reached=reached) from error


def _exported(store: Store, name: str, check: Check) -> tuple[IO[bytes], int]:
    """Write a record to a file: a slow caller must not keep the database's log from shrinking."""
    with _file_errors():
        file = tempfile.SpooledTemporaryFile(BUFFERED)  # noqa: SIM115 - closed once it is sent
        try:
            with store.snapshot() as connection:
                for line in record.export(connection, name, __version__):
                    check()
                    file.write(line)
            size = file.tell()
            file.seek(0)  # which writes the rest, too
        except BaseException:
            file.close()
            raise
    return file, size


def _replay(
    store: Store, session: Session, ref: AttemptRange, start: int, end: int
) -> dict[str, Any]:
    """Return a spec whose schedule is the realised curve of a session."""
    spec, count = session.spec, end - start
    if count < 1 or count > MAX_TABLE:
        raise NoTableError(start, end, MAX_TABLE)
    series = spec.series()
    refuse_too_many(len(series), count)
    block = sealed_values(store, ref, len(series), start, end)
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
    return {**body, "start_step": start, "total_steps": end, "ranks": spec.ranks}


def _table(levels: list[float], start: int) -> dict[str, Any]:
    table = {"kind": "table", "levels": levels}
    # A session's clock shows the step, wherever it starts; a table begins where it shows 0.
    return {"kind": "delay", "by": start, "schedule": table} if start else table


def _of_channels(laws: dict[str, Any]) -> dict[str, Any]:
    schedule: dict[str, Any] = laws["lr"] if len(laws) == 1 else {"kind": "channels", "laws": laws}
    return schedule


def _written(
    store: Store,
    write: Callable[Concatenate[Connection, P], None],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Write in a separate transaction."""
    with store.transaction() as connection:
        write(connection, *args, **kwargs)


def _dropped(store: Store, number: int) -> None:
    """Remove what was written of an import that is unfinished, even if it has filled the disk."""
    with store.transaction(frees=True) as connection:
        record.drop(connection, number)
