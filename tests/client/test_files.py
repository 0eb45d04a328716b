"""Files that the client writes are whole, or are what they were before."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacesetter import Client, RangeTest
from pacesetter._bootstrap import Bootstrap
from pacesetter._files import writing
from pacesetter.cli import exits, pictures
from pacesetter.cli.entry import main


def _failing(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def _range_test() -> RangeTest:
    made = RangeTest.__new__(RangeTest)
    object.__setattr__(made, "picture", "<svg/>")
    return made


WRITERS: dict[str, Callable[[Path], None]] = {
    "a bootstrap": lambda file: Bootstrap.write(file, {}, {}),
    "a range test": lambda file: _range_test().save(file),
    "a curve": lambda file: pictures.write_svg(file, [], title="curve", log=False),
    "a drawn curve": lambda file: pictures.write_png(
        file, [pictures.Panel("lr", ())], title="curve", log=False
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_file_as_it_was(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error comes when all is flushed; the old content stays, and no other file beside it."""
    file = tmp_path / "kept.svg"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", _failing)
    with pytest.raises(OSError, match="No space"):
        write(file)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"kept.svg": "old"}
    monkeypatch.undo()
    write(file)
    assert [each.name for each in tmp_path.iterdir()] == ["kept.svg"]
    assert file.read_bytes() != b"old"


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path):
    """Each has a file of its own until it is complete; the last one keeps the name."""
    file = tmp_path / "contested"
    with writing(file) as first:
        first.write(b"first")
        with writing(file) as second:
            second.write(b"second")
        assert file.read_bytes() == b"second"
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


def test_no_file_of_the_users_is_overwritten_on_the_way(tmp_path: Path):
    """A file with `.part` after the name may be anyone's."""
    mine = tmp_path / "record.part"
    mine.write_text("mine")
    with writing(tmp_path / "record") as out:
        out.write(b"record")
    assert mine.read_text() == "mine"


def test_a_link_and_the_permissions_stay(tmp_path: Path):
    """What is written is what the link points to, for those who could read it before."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with writing(link) as out:
        out.write(b"new")
    assert link.is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("new", 0o640)


def test_a_pipe_is_written_into(tmp_path: Path):
    """Its reader gets all, and it is a pipe still."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with writing(pipe) as out:
        out.write(b"record")
    reader.join()
    assert read == [b"record"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_into():
    """What is written to the null device is gone, and the device is there still."""
    with writing("/dev/null") as out:
        out.write(b"record")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_table_that_cannot_be_asked_for_leaves_the_old_one(
    client: Client, unique_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`history -o` of a missing session does not empty the file that an earlier one has written."""
    monkeypatch.setenv("PACESETTER_URL", client.url)
    file = tmp_path / "table.csv"
    file.write_text("old")
    assert main(["history", unique_name, "-o", str(file)]) == exits.NOT_FOUND
    assert file.read_text() == "old"
