"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

OF_THE_SYSTEM = frozenset({"/dev", "/dev/fd", "/proc/self/fd"})
"""Folders whose names stand for what is open already, such as `/dev/stdout`."""


@contextlib.contextmanager
def writing(file: str | os.PathLike[str] | IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a file that gets its name only once it is complete; an open file stays open.

    Until then, and after an error, a file that had the name before is as it was. A pipe or a device
    has no such name to keep, so it is written into.

    Raises:
        FileNotFoundError: There is no folder to write it into.
    """
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    if _is_to_be_kept(file):
        with Path(file).open("wb") as out:
            yield out
        return
    target = Path(os.path.realpath(file))  # a link stays a link
    if not target.parent.is_dir():
        missing = f"There is no folder {str(target.parent)!r}: make it first"
        raise FileNotFoundError(errno.ENOENT, missing, str(target))
    # The name is short, for a long one of the target's, and no other writer has it.
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileNotFoundError):
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _is_to_be_kept(file: str | os.PathLike[str]) -> bool:
    """Return whether a name must go on to stand for what it does, which is no regular file."""
    if str(Path(file).absolute().parent) in OF_THE_SYSTEM:
        return True
    try:
        return not stat.S_ISREG(Path(file).stat().st_mode)
    except FileNotFoundError:
        return False
