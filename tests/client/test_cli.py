"""The command `pacesetter`: its entry points, and what it needs."""

import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
import typer.main

from pacesetter import cli
from pacesetter.cli import app, exits, plain


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["-V"]])
def test_version_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """`pacesetter version` and its variants print one line."""
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [plain.own_version()]


def test_serve_hands_its_options_to_the_service(monkeypatch: pytest.MonkeyPatch):
    """The service defines its options; the client's command does not repeat them."""
    seen: list[list[str]] = []
    service = types.ModuleType("pacesetter_service.__main__")
    monkeypatch.setattr(service, "main", seen.append, raising=False)
    monkeypatch.setitem(sys.modules, "pacesetter_service.__main__", service)
    assert cli.main(["serve", "--port", "0", "--help"]) == 0
    assert seen == [["--port", "0", "--help"]]


def without(missing: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where some packages are not installed."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing}))\n"
        "from pacesetter.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_the_service_the_command_says_what_to_install():
    """A client-only installation explains itself and exits with 2."""
    done = without(["fastapi", "uvicorn", "structlog"], "serve")
    assert done.returncode == exits.USAGE
    assert "pip install 'pacesetter[service]'" in done.stderr


def test_without_typer_only_what_needs_it_is_missing():
    """Running a server works without it; other commands say what to install, and no traceback."""
    missing = ["typer", "rich"]
    assert "--database-url" in without(missing, "doctor", "--help").stdout
    done = without(missing, "ls")
    assert (done.returncode, done.stdout) == (exits.USAGE, "")
    assert done.stderr.splitlines() == [
        "pacesetter: ls needs typer, which is not installed",
        "  -> pip install 'pacesetter[cli]'",
    ]
    assert [name for name in plain.PLAIN if f"  {name} " not in plain.overview()] == []


def test_the_client_alone_stays_light():
    """The client needs httpx and nothing else; the command line is a separate extra."""
    needed = [each for each in requires("pacesetter") or () if "extra ==" not in each]
    assert [each.partition(">")[0] for each in needed] == ["httpx<1,"]


@pytest.mark.parametrize("arguments", [["dance"], ["version", "--loud"], ["ls", "--loud"], []])
def test_an_unknown_command_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    """A mistake prints the usage and exits with 2."""
    assert cli.main(arguments) == exits.USAGE
    told = capsys.readouterr()
    assert "usage: pacesetter" in (told.out + told.err).lower()


def commands() -> Iterator[tuple[str, typer.main.TyperCommand]]:
    """Return every command with its name, as it is typed."""

    def below(group: object, path: str) -> Iterator[tuple[str, typer.main.TyperCommand]]:
        for name, each in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(each, "commands"):
                yield from below(each, f"{path}{name} ")
            else:
                yield path + name, each

    yield from below(typer.main.get_command(app.made()), "")


COMMANDS = dict(commands())


def test_every_command_is_told_its_server_and_its_reader():
    """Each has `--url` and `--json`, and none takes a token."""
    for name in sorted(set(COMMANDS) - set(plain.PLAIN)):
        options = {each for param in COMMANDS[name].params for each in param.opts}
        assert options >= {"--url", "--json"}, name
        assert "--token" not in options, name
        assert "PACESETTER_TOKEN" in COMMANDS[name].epilog, name


@pytest.mark.parametrize("name", ["ls", "scale", "template use", "prune"])
def test_the_help_of_a_command_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]):
    """It also says where the token comes from."""
    assert cli.main([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "PACESETTER_TOKEN" in said
    assert "--url" in said


def test_the_shell_completes_commands_and_sessions(
    server_url: str, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """Session names come from the server; without one there is no completion, and no error."""
    from pacesetter import Client
    from pacesetter.cli.completion import session_names

    with Client(server_url) as client:
        client.create(unique_name, base_lr=0.1)
    monkeypatch.setenv("PACESETTER_URL", server_url)
    assert session_names(unique_name[:-1]) == [unique_name]
    monkeypatch.setenv("PACESETTER_URL", "http://127.0.0.1:9")
    assert session_names(unique_name) == []
    monkeypatch.setenv("PACESETTER_URL", "no url")
    assert session_names(unique_name) == []
