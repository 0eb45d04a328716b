"""Backups of the database that admins make on the dashboard, and how long sessions are kept."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

import postgres
from pacesetter import cli
from pacesetter_service.runtime import backups
from pacesetter_service.runtime.backups import BackupError, Backups
from pacesetter_service.store.sqlite import SqliteStore
from serving import RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"


def test_a_copy_is_made_taken_along_put_back_and_removed(page: Page, tmp_path: Path) -> None:
    """In a browser, the copy appears by itself when it is complete, and has what was recorded."""
    folder = tmp_path / "served"
    folder.mkdir(mode=0o700)
    database = folder / "pacesetter.db"
    with RunningService(database) as service:
        with open_http(service.url) as http:
            http.post("/v1/sessions", json={"name": "kept", "base_lr": 0.1}).raise_for_status()
        page.goto(f"{service.url}/admin")
        page.get_by_role("button", name="Make a copy").click()
        link = page.locator("#copies a")
        expect(link).to_have_text(re.compile(r"pacesetter\.db-\d{8}T\d{6}Z\.backup"))
        with page.expect_download() as downloading:
            link.click()
        taken = tmp_path / "taken.copy"
        downloading.value.save_as(taken)
        (made,) = folder.glob("*.backup")
        assert made.read_bytes() == taken.read_bytes()
        assert made.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(taken)) as copy:
            assert copy.execute("SELECT name FROM sessions").fetchall() == [("kept",)]
        page.get_by_role("button", name=f"Remove {made.name}").click()
        expect(link).to_have_count(0)
        assert list(folder.glob("*.backup*")) == []
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert cli.main(["restore", str(taken), "--database-url", other]) == 0


def test_a_copy_leaves_no_room_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk could become full it is refused, with what to run instead."""
    monkeypatch.setattr(backups, "ROOM", 1e12)
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    try:
        with pytest.raises(BackupError, match="run `pacesetter backup` with a file on another"):
            Backups(store).begin("ann")
        assert Backups(store).copies() == []
        assert Backups(store).copying() is None
    finally:
        store.close()


def test_what_a_copy_that_was_cut_off_has_left_is_removed(tmp_path: Path) -> None:
    """Its process ended meanwhile; files of others stay."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    left = tmp_path / ".pacesetter.db-20260101T000000Z.backup.0a1b2c3d"
    other = tmp_path / "pacesetter.db-mine.backup"
    going_on = tmp_path / ".pacesetter.db-two-20260101T000000Z.backup.0a1b2c3d"  # of another
    for each in (left, other, going_on):
        each.write_text("x")
    try:
        some = Backups(store)
        some.begin("ann")
        some.begin("ann")  # it goes on already, or is made again a moment later
        while some.copying() is not None:
            pass
        assert not left.exists()
        assert other.exists()
        assert going_on.exists()
        assert some.find(other.name) is None
        assert some.copies()
    finally:
        store.close()


def test_the_page_is_read_again_until_the_copy_is_whole(page: Page, tmp_path: Path) -> None:
    """It is reloaded each second while the copy is being made, and not afterwards."""
    read: list[str] = []
    page.on("request", lambda request: read.append(request.url))

    def while_copying(route: Route) -> None:
        """Show the first page as it is while a copy is being made."""
        answer = route.fetch()
        begin = '<div id="copies" data-live>'
        text = answer.text().replace(begin, f'{begin}<div data-every="1"></div>')
        route.fulfill(response=answer, body=text)

    with RunningService(tmp_path / "pacesetter.db") as service:
        page.route("**/admin", while_copying, times=1)
        page.clock.install(time=0)
        page.clock.pause_at(1)  # a running clock could ask for the page once more meanwhile
        page.goto(f"{service.url}/admin")
        expect(page.locator("#copies [data-every]")).to_have_count(1)
        page.clock.run_for(1500)
        expect(page.locator("#copies [data-every]")).to_have_count(0)
        assert any("live=1" in each for each in read)
        read.clear()
        page.clock.run_for(10_000)
        page.evaluate("() => fetch('/livez')")
        assert [each for each in read if "live=1" in each] == []


def test_a_copy_that_is_removed_while_copies_are_listed_is_left_out(tmp_path: Path) -> None:
    """A link to nothing stands for it: it cannot be read, and the others stay listed."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    try:
        there = tmp_path / "pacesetter.db-20260101T000000Z.backup"
        there.write_text("x")
        gone = tmp_path / "pacesetter.db-20260102T000000Z.backup"
        gone.symlink_to(tmp_path / "nothing")
        assert [each.path for each in Backups(store).copies()] == [there]
    finally:
        store.close()


@contextmanager
def logged_in(url: str, secret: str) -> Iterator[httpx.Client]:
    """Return the browser of the holder of a token."""
    with open_http(url) as http:
        http.headers["origin"] = url
        assert http.post("/login", data={"token": secret}).status_code == 303
        yield http


def test_copies_are_for_admins_alone(tmp_path: Path) -> None:
    """The holder of a copy can read everything, so an operator neither makes nor gets any."""
    with RunningService(tmp_path / "pacesetter.db", admin_token=ADMIN) as service:
        with open_http(service.url) as http:
            asked = {"name": "olga", "role": "operator"}
            bearer = {"authorization": f"Bearer {ADMIN}"}
            olga = http.post("/v1/tokens", json=asked, headers=bearer).json()["token"]
        with logged_in(service.url, ADMIN) as admin, logged_in(service.url, olga) as operator:
            assert admin.post("/admin/backups", data={}).status_code == 303
            name = None
            while name is None:
                name = re.search(r"admin/backups/([^/\"]+)\" download", admin.get("/admin").text)
            address = f"/admin/backups/{name[1]}"
            assert admin.get(address).content.startswith(b"SQLite format 3")
            assert admin.get("/admin/backups/pacesetter.db").status_code == 404
            assert admin.get("/admin/backups/..%2Fpacesetter.db").status_code == 404
            for refused in (
                operator.get(address),
                operator.post("/admin/backups", data={}),
                operator.post(f"{address}/remove", data={}),
            ):
                assert refused.status_code == 403
            with open_http(service.url) as stranger:
                assert stranger.get(address).status_code == 303


def test_a_service_on_postgresql_says_what_copies_it() -> None:
    """It has no place for a copy; the page has the command, and no button."""
    with postgres.database() as url, RunningService(url) as service, open_http(service.url) as http:
        http.headers["origin"] = service.url
        page = http.get("/admin").text
        assert "pacesetter backup pacesetter.copy --database-url" in unescape(page)
        assert "Make a copy" not in page
        refused = http.post("/admin/backups", data={})
        assert refused.status_code == 422
        assert "cannot copy a database of PostgreSQL" in refused.text


def test_how_long_sessions_are_kept_is_shown(tmp_path: Path) -> None:
    """It is as the settings say; without them, for ever."""
    for settings, told in (
        ({}, ["never", "never"]),
        ({"archive_after_days": "30", "purge_after_days": "1"}, ["after 30 days", "after 1 day"]),
    ):
        database = tmp_path / f"{len(settings)}.db"
        with RunningService(database, **settings) as service, open_http(service.url) as http:
            card = http.get("/admin").text.partition('id="retention"')[2]
            assert re.findall(r"<dd>(never|after [\d.]+ days?) ", card) == told
