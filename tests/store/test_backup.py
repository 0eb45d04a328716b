"""Backing up a database that is being served, and restoring it: by the command, on real stores."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from errno import EIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, insert, select

import postgres
from pacesetter import Client, HistoryLostError, cli
from pacesetter_service.store import migrate
from pacesetter_service.store.continuity import Mark
from pacesetter_service.store.schema import templates
from serving import RunningService, open_http


@pytest.fixture(name="address", params=["sqlite", "postgresql"])
def _address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database that this test alone uses."""
    with contextlib.ExitStack() as ends:
        if request.param == "postgresql":
            yield ends.enter_context(postgres.database())
        else:
            yield f"sqlite:///{tmp_path / 'own.db'}"


def _run(what: str, path: Path, address: str, *options: str) -> int:
    return cli.main([what, str(path), *options, "--database-url", address])


def _create(url: str, name: str) -> dict[str, Any]:
    with open_http(url) as http:
        spec = {"name": name, "base_lr": 0.1}
        found: dict[str, Any] = http.post("/v1/sessions", json=spec).raise_for_status().json()
        return found


def test_a_served_database_is_copied_and_restored(address: str, tmp_path: Path) -> None:
    """What came after the backup is lost, trainers are told, and no number is used again."""
    copy = tmp_path / "copy"
    with RunningService(address) as service:
        epoch = _create(service.url, "kept")["epoch"]
        client = Client(service.url)
        session = client.session("kept")
        rate = session.lr(3)
        assert _run("backup", copy, address) == 0
        assert copy.stat().st_mode & 0o777 == 0o600
        _create(service.url, "lost")
        session.restart(2)
        assert session.attempt == 2
        session.lr(2)
        assert _run("restore", copy, address, "--replace") == 1  # while it is served
    assert _run("restore", copy, address) == 1  # without --replace
    assert _run("restore", copy, address, "--replace") == 0
    with RunningService(address) as service, open_http(service.url) as http:
        assert [each["name"] for each in http.get("/v1/sessions").json()["sessions"]] == ["kept"]
        found = http.get("/v1/sessions/kept").json()
        assert found["epoch"] != epoch
        assert (found["attempt"], http.get("/v1/sessions/kept/lr?step=3").json()["lr"]) == (1, rate)
        with contextlib.closing(Client(service.url)) as late:
            follower = late.follow(session.info)
            with pytest.raises(HistoryLostError):
                follower.lr(4)
        opened = http.post("/v1/sessions/kept/attempts", json={"step": 2, "key": "new"}).json()
        assert opened["attempt"] > 1_000
        assert _create(service.url, "lost")["attempt"] > 1_000
        assert not [each for each in service.events() if each["event"] == "new_epoch"]
    client.close()


def _migrated_to(revision: str, address: str) -> None:
    """Create the tables that an older service would create, with a template in them."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    opened = create_engine(address)
    with opened.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        row = {"name": "old", "version": 1, "body": "{}", "created_at": ""}
        connection.execute(insert(templates), row)
    opened.dispose()


def _templates(address: str) -> list[str]:
    opened = create_engine(address)
    with opened.connect() as connection:
        found = list(connection.scalars(select(templates.c.name)))
    opened.dispose()
    return found


def test_a_copy_of_an_older_schema_takes_the_place_of_a_newer_one(tmp_path: Path) -> None:
    """Tables that the old schema lacks do not hinder a restore, and a torn copy changes nothing."""
    older, copy, torn = postgres.bare(), tmp_path / "copy", tmp_path / "torn"
    _migrated_to("0008", older)
    assert _run("backup", copy, older) == 0
    torn.write_bytes(copy.read_bytes()[:-10])
    with postgres.database() as address:
        assert cli.main(["migrate", "--database-url", address]) == 0
        assert _run("restore", torn, address, "--replace") == 1
        assert _templates(address) == []
        assert _run("restore", copy, address, "--replace") == 0
        assert _templates(address) == ["old"]


def test_what_was_replaced_is_kept_beside(tmp_path: Path) -> None:
    """A database that was set aside can be opened again under its new name."""
    path, copy = tmp_path / "own.db", tmp_path / "copy.db"
    address = f"sqlite:///{path}"
    with RunningService(path) as service:
        _create(service.url, "first")
        assert _run("backup", copy, address) == 0
        _create(service.url, "second")
        service.kill()  # so that its log is not checkpointed
    assert _run("restore", copy, address, "--replace") == 0
    aside = tmp_path / "own.db-before-restore"
    with contextlib.closing(sqlite3.connect(aside)) as connection:
        names = connection.execute("SELECT name FROM sessions ORDER BY name").fetchall()
    assert names == [("first",), ("second",)]


def test_each_restore_keeps_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that was set aside is overwritten; the command says under which name it is kept."""
    path, copy = tmp_path / "own.db", tmp_path / "copy.db"
    address = f"sqlite:///{path}"
    assert cli.main(["migrate", "--database-url", address]) == 0
    assert _run("backup", copy, address) == 0
    numbers = {"": 1, "-2": 2, "-3": 3}
    for end, number in numbers.items():
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version={number}")
        assert _run("restore", copy, address, "--replace") == 0
        assert capsys.readouterr().out.endswith(f" kept as {path}-before-restore{end}\n")
    for end, number in numbers.items():
        with contextlib.closing(sqlite3.connect(f"{path}-before-restore{end}")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (number,)


@pytest.mark.parametrize("damage", ["torn", "other", "missing"])
def test_what_is_no_copy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Nothing is changed, and the message names the file."""
    path, copy = tmp_path / "own.db", tmp_path / "copy.db"
    address = f"sqlite:///{path}"
    assert cli.main(["migrate", "--database-url", address]) == 0
    if damage == "torn":
        copy.write_bytes(path.read_bytes()[:20_000])
    elif damage == "other":
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE other (a)")
    before = path.read_bytes()
    assert _run("restore", copy, address, "--replace") == 1
    assert str(copy) in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_copy_never_takes_the_databases_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup onto the database itself, into a missing folder or of no database is refused."""
    path = tmp_path / "own.db"
    address = f"sqlite:///{path}"
    assert _run("backup", tmp_path / "copy.db", address) == 1
    assert cli.main(["migrate", "--database-url", address]) == 0
    assert _run("backup", path, address) == 1
    assert "itself" in capsys.readouterr().err
    assert _run("backup", tmp_path / "nowhere" / "copy.db", address) == 1


def test_postgresql_needs_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without them, the command says what to install."""
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    assert _run("backup", tmp_path / "copy", "postgresql+psycopg://nobody@/none") == 1
    assert "pg_dump is not installed" in capsys.readouterr().err


def _served_twice(tmp_path: Path) -> tuple[Path, Path]:
    """Return a database with two sessions, and a copy from before the second."""
    path, copy = tmp_path / "own.db", tmp_path / "copy.db"
    with RunningService(path) as service:
        _create(service.url, "first")
        assert _run("backup", copy, f"sqlite:///{path}") == 0
        _create(service.url, "second")
    return path, copy


def test_a_restore_whose_mark_cannot_be_opened_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator reads which file is in the way, and the database stays where it is."""
    path, copy = _served_twice(tmp_path)
    mark = tmp_path / "own.db-mark"
    mark.unlink()
    mark.mkdir()
    before = path.read_bytes()
    assert _run("restore", copy, f"sqlite:///{path}", "--replace") == 1
    assert f"{mark}, which belongs to the database, cannot be opened" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*before-restore*"))


def test_a_restore_whose_mark_cannot_be_written_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator hears where the previous database is kept; the next start begins an epoch."""
    path, copy = _served_twice(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(Mark, "write", fail)
        assert _run("restore", copy, f"sqlite:///{path}", "--replace") == 0
    assert "own.db-before-restore" in capsys.readouterr().out
    with RunningService(path) as service, open_http(service.url) as http:
        assert [each["name"] for each in http.get("/v1/sessions").json()["sessions"]] == ["first"]
    [told] = [each for each in service.events() if each["event"] == "new_epoch"]
    assert told["reason"] == "another"
