"""The `pacesetter` command."""

import subprocess
import sys
import types

import pytest

from pacesetter import _cli


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    """`pacesetter version` prints one line."""
    assert _cli.main(["version"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_serve_hands_its_options_to_the_service(monkeypatch: pytest.MonkeyPatch):
    """The service knows its options; the client's command does not repeat them."""
    seen: list[list[str]] = []
    service = types.ModuleType("pacesetter_service.__main__")
    monkeypatch.setattr(service, "main", seen.append, raising=False)
    monkeypatch.setitem(sys.modules, "pacesetter_service.__main__", service)
    assert _cli.main(["serve", "--port", "0", "--help"]) == 0
    assert seen == [["--port", "0", "--help"]]


def test_without_the_service_the_command_says_what_to_install():
    """A client-only installation explains itself and exits with 2."""
    code = (
        "import sys\n"
        "sys.modules['fastapi'] = sys.modules['uvicorn'] = sys.modules['structlog'] = None\n"
        "from pacesetter._cli import main\n"
        "sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'pacesetter[service]'" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["dance"], ["version", "--loud"]])
def test_an_unknown_command_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    """A mistake prints the usage and exits with 2."""
    with pytest.raises(SystemExit) as caught:
        _cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: pacesetter" in capsys.readouterr().err
