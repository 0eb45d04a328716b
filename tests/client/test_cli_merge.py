"""`pacesetter merge` against a real server."""

import json

import pytest

from pacesetter import Client, cli
from pacesetter.cli import exits
from serving import open_http


def test_a_merge_is_shown_and_refused(
    server_url: str,
    client: Client,
    unique_name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It prints the weights, what is left out and the order it stands for, or JSON on request."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    schedule = {"kind": "wsd", "total_steps": 100, "warmup_steps": 20, "decay_steps": 10}
    client.create(unique_name, base_lr=0.1, schedule=schedule)
    with open_http(server_url) as http:
        for step in range(0, 64, 16):
            http.post(
                f"/v1/sessions/{unique_name}/sync", json={"want": {"start": step, "count": 16}}
            )
    words = ["merge", unique_name, "10", "24", "44", "64", "--shape", "linear"]
    assert cli.main(words) == exits.OK
    printed = capsys.readouterr().out
    assert "left out: 10: the rate is constant from step 20 on only" in printed
    assert "0.762500" in printed
    assert "in place of a linear cooldown over 40 steps from step 24 on" in printed
    assert cli.main([*words, "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert [each["step"] for each in found["checkpoints"]] == [24, 44, 64]
    assert cli.main(["merge", unique_name, "5", "10"]) == exits.REFUSED
    assert "Fewer than two" in capsys.readouterr().err
