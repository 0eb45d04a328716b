"""Which service or command migrates a database, and which databases are refused."""

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacesetter import cli
from pacesetter_service.store import served
from pacesetter_service.store.file_systems import OVER_A_NETWORK, kind_of, over_a_network
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore

OLD = Path(__file__).parents[1] / "golden" / "databases" / "f9daf41.sql"


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> Path:
    """Make a database of an older service."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD.read_text())
    path.chmod(0o600)
    return path


def _ask(path: Path, question: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchone()[0]


def test_a_service_that_may_not_migrate_says_who_does(old: Path) -> None:
    """The database stays as it was until the command has run; then it is served."""
    schema = _ask(old, "SELECT version_num FROM alembic_version")
    with pytest.raises(UnusableDatabaseError, match="pacesetter migrate"):
        SqliteStore(f"sqlite:///{old}", migrates=False)
    assert _ask(old, "SELECT version_num FROM alembic_version") == schema
    assert cli.main(["migrate", "--database-url", f"sqlite:///{old}"]) == 0
    SqliteStore(f"sqlite:///{old}", migrates=False).close()


def test_a_file_of_an_older_service_can_shrink_once_it_is_migrated(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command rewrites the file once, with all its content."""
    count = "SELECT count(*) FROM events"
    before = _ask(old, count)
    for said in ("can shrink", "newest"):
        assert cli.main(["migrate", "--database-url", f"sqlite:///{old}"]) == 0
        assert said in capsys.readouterr().out
    assert (_ask(old, "PRAGMA auto_vacuum"), _ask(old, count)) == (2, before)


def test_no_age_is_made_up_for_a_training_that_may_be_running(old: Path) -> None:
    """An active session counts as changed now, a finished one when its last event was written."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE sessions SET status = 'finished' WHERE name = 'plateau'")
        connection.commit()
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    SqliteStore(f"sqlite:///{old}").close()
    of_events = "SELECT max(e.created_at) FROM events e JOIN sessions s ON s.id = session_id"
    newest = _ask(old, f"{of_events} WHERE s.name = 'plateau'")
    assert _ask(old, "SELECT changed_at FROM sessions WHERE name = 'plateau'") == newest
    assert str(_ask(old, "SELECT min(changed_at) FROM sessions WHERE status = 'active'")) >= began


def test_sessions_are_found_by_the_template_that_they_were_made_of(old: Path) -> None:
    """Existing sessions are found too, also where a fork replaced the description of its source."""
    origin = {"origin": {"template": "vit@3", "values": {}}}
    anew = {"origin": None, "earlier": {"until": 1, "spec": {**origin, "earlier": None}}}
    with closing(sqlite3.connect(old)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sessions ORDER BY name")]
        for name, added in zip(names, (origin, anew), strict=False):
            query = "SELECT spec FROM sessions WHERE name = ?"
            spec = json.loads(connection.execute(query, (name,)).fetchone()[0]) | added
            text = json.dumps(spec, separators=(",", ":"))
            connection.execute("UPDATE sessions SET spec = ? WHERE name = ?", (text, name))
        connection.commit()
    SqliteStore(f"sqlite:///{old}").close()
    with closing(sqlite3.connect(old)) as connection:
        there = dict(connection.execute("SELECT name, template FROM sessions"))
    assert [there[name] for name in names[:2]] == ["vit@3", "vit@3"]
    assert set(there.values()) == {"vit@3", None}


def test_a_newer_schema_is_refused(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names both schemas, and the command to run."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_later'")
        connection.commit()
    assert cli.main(["migrate", "--database-url", f"sqlite:///{old}"]) == 1
    told = capsys.readouterr().err
    assert "9999_later" in told
    assert "newer version" in told


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
41 27 0:45 / /home rw,relatime shared:1 - nfs4 server:/home rw
42 27 0:46 / /mnt/a\\040b rw,relatime shared:1 master:2 - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("device", "kind"),
    [((254, 0), "ext4"), ((0, 45), "nfs4"), ((0, 46), "fuse.sshfs"), ((0, 47), None)],
)
def test_a_file_system_is_known_by_its_device(device: tuple[int, int], kind: str | None) -> None:
    """The path under which it is mounted does not matter."""
    assert kind_of(os.makedev(*device), MOUNTS) == kind
    assert (kind in OVER_A_NETWORK) == (kind in {"nfs4", "fuse.sshfs"})


def test_a_database_on_a_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file system, and says where to put the file instead."""
    assert over_a_network(tmp_path / "a" / "b.db") is None
    monkeypatch.setattr(served, "over_a_network", lambda _path: "nfs4")
    with pytest.raises(UnusableDatabaseError, match=r"nfs4.*local disk.*PostgreSQL"):
        SqliteStore(f"sqlite:///{tmp_path / 'a.db'}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["migrate"], ["backup", "copy"], ["restore", "copy"]])
def test_a_command_reads_the_settings_of_its_database_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    """An error there names the variable and not its value; other settings are not read."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "DATABASE_URL_FILE"):
        monkeypatch.delenv(f"PACESETTER_{name}", raising=False)
    monkeypatch.setenv("PACESETTER_TLS_CERT", "no-such-certificate")
    monkeypatch.setenv("PACESETTER_ADMIN_TOKEN", "shortsecret")
    cli.main([*command])
    told = capsys.readouterr().err.lower()
    assert "tls" not in told
    assert "token" not in told
    monkeypatch.setenv("PACESETTER_DATABASE_URL", "postgresql+psycopg://me:hidden@db/p")
    monkeypatch.setenv("PACESETTER_DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command])
    named = f"pacesetter {command[0]}: PACESETTER_DATABASE_URL_FILE: "
    assert (
        capsys.readouterr().err
        == f"{named}The setting and the file in its place are both given. Drop one\n"
    )


def test_a_port_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message shows the form of a URL, and no password."""
    url = "postgresql+psycopg://me:hidden@db:none/p"
    assert cli.main(["migrate", "--database-url", url]) == 1
    told = capsys.readouterr().err
    assert "the database-url must name" in told
    assert "hidden" not in told
