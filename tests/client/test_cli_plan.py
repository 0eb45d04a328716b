"""`pacesetter plan` against a real server."""

import json

import pytest

from lawful import SEEN, SPEC, train
from pacesetter import Client, cli
from pacesetter.cli import exits
from serving import PATIENCE, open_http


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = exits.OK) -> str:
    """Run a command, and return what it prints."""
    capsys.readouterr()
    code = cli.main([str(each) for each in arguments])
    told = capsys.readouterr()
    assert code == status, told.err
    return told.out if status == exits.OK else told.err


def test_a_plan_is_drawn_and_its_best_ordered(
    server_url: str,
    client: Client,
    unique_name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a probe it says what is missing; then it draws the curves, and orders by number."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    monkeypatch.setenv("COLUMNS", "160")
    # A plan takes as long as an exchange may; machines that test can stall.
    monkeypatch.setattr("pacesetter.cli.server.RETRY_FOR", 0.001)
    monkeypatch.setattr("pacesetter.cli.server.TIMEOUT", PATIENCE)
    client.create(unique_name, **SPEC)
    with open_http(server_url) as http:
        rates = train(http, unique_name, SEEN, [])
        printed = run(capsys, "plan", unique_name, "loss")
        assert "no_decay: " in printed
        assert "pacesetter.torch.probe" in printed
        fork = f"{unique_name}-probe"
        client.fork(unique_name, fork, step=SEEN)
        client.cooldown(fork, steps=100, at=SEEN, ease="linear")
        train(http, fork, SEEN + 100, rates)
    printed = run(capsys, "plan", unique_name, "loss")
    for said in ("loss, so far and as expected", "learning rate", "a law without rates"):
        assert said in printed
    assert "as planned" in printed
    assert "It predicts this metric only" in printed
    found = json.loads(run(capsys, "plan", unique_name, "loss", "--json"))
    assert f"--apply 1 --of {found['id']}" in printed
    wrong = ("plan", unique_name, "loss", "--apply")
    assert "no longer 1234" in run(capsys, *wrong, 1, "--of", "1234", "-m", "x", status=1)
    assert "no candidate 99" in run(capsys, *wrong, 99, "-m", "x", status=1)
    ordered = run(capsys, *wrong, 1, "--of", found["id"], "-m", "it is time")
    assert found["candidates"][0]["label"] in ordered
    [order] = client.orders(unique_name)
    assert order["at"] == found["candidates"][0]["orders"][0]["at"]
    assert order["reason"].startswith("it is time (plan ")
