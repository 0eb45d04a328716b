"""`pacesetter doctor`: each check says OK, or what to do."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

import postgres
from little_servers import Asked, answer, answering
from pacesetter import cli
from pacesetter_service.store.postgres import PostgresStore
from serving import RunningService, open_http


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the checks by name."""
    code = cli.main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    return code, {each["check"]: each for each in found["checks"]}


def results(found: dict[str, Any]) -> dict[str, str]:
    """Return the result of each check."""
    return {name: each["result"] for name, each in found.items()}


def test_all_is_well_with_a_running_service(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check of a local service is OK, and what `--write` has created is archived."""
    code, found = run(capsys, "--url", server_url, "--write")
    assert (code, set(results(found).values())) == (0, {"OK"}), found
    assert set(found) == {
        *("address", "reachable", "version", "ready", "token", "clock", "latency"),
        *("round trip", "archive"),
    }
    name = found["archive"]["detail"].split()[1]
    with open_http(server_url) as http:
        assert http.get(f"/v1/sessions/{name}").json()["status"] == "archived"


def test_nothing_is_written_unless_it_is_asked_for(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output has a line for each check; sessions are as they were."""
    with open_http(server_url) as http:
        before = http.get("/v1/sessions", params={"limit": 1000}).json()
        assert cli.main(["doctor", "--url", server_url]) == 0
        assert http.get("/v1/sessions", params={"limit": 1000}).json() == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("OK    ") for line in lines)


def test_a_server_that_is_away_fails_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """Checks that need an answer are skipped, and the exit code is 1."""
    code, found = run(capsys, "--url", "http://127.0.0.1:9")
    assert (code, results(found)) == (1, {"address": "OK", "reachable": "FAIL"})
    assert found["reachable"]["advice"]


def test_a_token_is_known_by_its_role(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells no token, an admin's and a trainer's; what a trainer may not do is a warning."""
    admin = "an-admins-token-of-tests"
    with RunningService(tmp_path / "pacesetter.db", admin_token=admin) as service:
        _, found = run(capsys, "--url", service.url)
        assert found["token"]["result"] == "FAIL"
        assert "PACESETTER_TOKEN" in found["token"]["advice"]
        assert "PACESETTER_TOKEN" not in found["token"]["detail"]  # the remedy is printed once
        assert "round trip" not in run(capsys, "--url", service.url, "--write")[1]
        monkeypatch.setenv("PACESETTER_TOKEN", admin)
        assert run(capsys, "--url", service.url)[1]["token"]["detail"] == "its role is admin"
        made = httpx.post(
            f"{service.url}/v1/tokens",
            json={"name": "job", "role": "trainer"},
            headers={"authorization": f"Bearer {admin}"},
        ).json()
        monkeypatch.setenv("PACESETTER_TOKEN", made["token"])
        code, found = run(capsys, "--url", service.url, "--write")
        assert code == 0
        assert found["token"]["detail"] == "its role is trainer"
        assert results(found) | {"archive": "WARN"} == results(found)


def test_what_is_odd_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Another version and another clock are warnings; a server that is not ready is a failure."""

    def say(asked: Asked) -> bytes:
        date = "Mon, 01 Jan 2024 00:00:00 GMT"
        if asked.target == "/readyz":
            problem = b'{"code": "stalled", "detail": "The writer stands."}'
            return answer(503, problem, date=date)
        return answer(200, b'{"version": "9.9.9"}', date=date)

    with answering(say) as (server, _):
        code, found = run(capsys, "--url", server.url)
    assert code == 1
    assert results(found) | {"version": "WARN", "clock": "WARN", "ready": "FAIL"} == results(found)
    assert "The writer stands" in found["ready"]["detail"]


def database_of(service: RunningService) -> str:
    """Return the URL of a service's database."""
    return f"sqlite:///{service.database}"


def test_a_database_is_looked_at_while_it_is_served(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database is not changed; permissions and schema are reported."""
    code, found = run(capsys, "--database-url", database_of(service))
    assert (code, found["schema"]["result"], found["integrity"]["result"]) == (0, "OK", "OK")
    assert found["permissions"]["result"] == "OK"
    assert "reachable" not in found
    Path(service.database).chmod(0o644)
    _, found = run(capsys, "--database-url", database_of(service))
    assert found["permissions"]["result"] == "WARN"
    assert "chmod 600" in found["permissions"]["advice"]


def test_a_database_that_cannot_be_served_fails(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    """These are a newer schema, an older one, damage, another file, and none at all."""
    service.stop()
    path, url = Path(service.database), database_of(service)
    for revision, result in (("9999", "FAIL"), ("0008", "WARN")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        assert run(capsys, "--database-url", url)[1]["schema"]["result"] == result
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code, found = run(capsys, "--database-url", url)
    assert code == 1
    assert "FAIL" in {found["database"]["result"], found.get("integrity", {}).get("result")}
    path.write_text("no database at all, but some text" * 100)
    assert run(capsys, "--database-url", url)[1]["database"]["result"] == "FAIL"
    path.unlink()
    assert run(capsys, "--database-url", url)[1]["database"]["result"] == "WARN"
    assert run(capsys, "--database-url", "mysql://x/y")[1]["database"]["result"] == "FAIL"


def test_a_postgresql_database_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """A database that a service has made is OK; a missing one is a failure."""
    with postgres.database() as url:
        PostgresStore(url).close()
        code, found = run(capsys, "--database-url", url)
        assert code == 0
        names = ("database", "schema", "server_encoding", "fsync", "synchronous_commit")
        assert results(found) == dict.fromkeys(names, "OK")
        nowhere = make_url(url).set(database="nowhere").render_as_string(hide_password=False)
    code, found = run(capsys, "--database-url", nowhere)
    assert (code, results(found)) == (1, {"database": "FAIL"})
