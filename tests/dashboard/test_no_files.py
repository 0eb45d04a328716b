"""Pages of a service that can open no file any more: they say so, in the dashboard's own form."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.backups import Backups
from pacesetter_service.store.sqlite import SqliteStore
from serving import RunningService, open_http

PAGES = {"/": 200, "/timeline": 200, "/create": 200, "/sessions/none": 404, "/admin": 503}
"""The status of each page, in the order in which they are asked for."""


@contextmanager
def no_file_left(process: int) -> Iterator[None]:
    """Let a process open no file, as one that has reached its limit."""
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path(f"/proc/{process}/fd").iterdir())
    resource.prlimit(process, resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))


def test_pages_are_shown_without_a_file_to_open(tmp_path: Path) -> None:
    """Most for the first time; what needs to open one is refused, and works again later."""
    with RunningService(tmp_path / "pacesetter.db") as service, open_http(service.url) as http:
        http.get("/admin").raise_for_status()
        with no_file_left(service.process.pid):
            shown = {path: http.get(path) for path in PAGES}
        assert http.get("/admin").status_code == 200
    for answer in shown.values():
        assert "<h1" in answer.text
    statuses = {path: answer.status_code for path, answer in shown.items()}
    assert statuses == PAGES
    assert "Too many open files" in shown["/admin"].text
    assert not [each for each in service.events() if each["event"] == "unforeseen_error"]


def test_a_folder_of_copies_that_cannot_be_read_is_no_unforeseen_error(tmp_path: Path) -> None:
    """Whatever an admin does with copies is refused, with the folder and the reason."""
    folder = tmp_path / "served"
    folder.mkdir()
    store = SqliteStore(f"sqlite:///{folder / 'pacesetter.db'}")
    some = Backups(store)
    folder.rename(tmp_path / "moved")
    for ask in (some.copies, lambda: some.find("x"), lambda: some.remove("x", "ann")):
        with pytest.raises(StorageUnavailableError, match="served: No such file"):
            ask()
    with pytest.raises(StorageUnavailableError):
        some.begin("ann")
    store.close()
