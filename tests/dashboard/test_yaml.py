"""A spec as YAML: every parser reads the same, and the command makes the same session."""

import re
import tempfile
from html import unescape
from pathlib import Path

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pacesetter import cli
from pacesetter.cli.arguments import document
from pacesetter_service.catalogue import kinds
from pacesetter_service.dashboard.as_yaml import as_yaml

WORDS = st.sampled_from(
    ["no", "On", "NULL", "~", "1e3", "1_000", "0x1f", "1:30", ".inf", "- a", "a: b", "#", "", " a",
     "@x", "%d", "'", '"', "\\", "2026-01-31", "<<", "=", "a\n\nb\n", "\x85", "\u2028", "\ufeff",
     "\U0001f600", "\x7f", "*a", "&a", "!b", "|", ">", "? a", "torch.StepLR"]
)  # fmt: skip

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | WORDS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def same(one: JsonValue, other: JsonValue) -> bool:
    """Return whether two values are the same, types and signs of zeros included."""
    return repr(one) == repr(other)


@given(VALUES)
def test_yaml_is_read_as_what_it_was_written_from(value: JsonValue) -> None:
    """A parser of YAML 1.1 misreads the most values, so it is the one that is tested."""
    assert same(yaml.safe_load(as_yaml(value)), value)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_the_command_reads_it_as_what_it_was_written_from(value: dict[str, JsonValue]) -> None:
    """Its own parser reads exponents as YAML 1.2 has them."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8", newline="") as file:
        file.write(as_yaml(value))
        file.flush()
        assert same(document(file.name), value)


def test_numbers_keep_their_bits() -> None:
    """They have a point before the exponent, without which YAML 1.1 reads them as words."""
    assert as_yaml({"lr": 1e-05, "big": 1e22, "tenth": 0.1}) == (
        "lr: 1.0e-05\nbig: 1.0e+22\ntenth: 0.1\n"
    )


def test_a_file_from_a_page_makes_the_same_session_by_the_command(
    http: httpx.Client, server_url: str, unique_name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the page shows before a session is made, read back by `create -f`, is that session."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    example = kinds.describe_schedule("warmup_cosine")["example"]
    more = '{"labels": {"note": "yes: \\u00fc #1"}, "ranks": 2, "limits": {"min_lr": 1e-7}}'
    said = {
        "name": unique_name,
        "base_lr": "3e-4",
        **{f"p.{name}": str(each) for name, each in example.items() if name != "kind"},
        "more": more,
        "do": "preview",
    }
    page = http.post("/create/kinds/warmup_cosine", data=said).text
    shown = re.search(r"<summary>YAML</summary><pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert shown is not None
    path = tmp_path / "spec.yaml"
    path.write_text(unescape(shown[1]), encoding="utf-8")
    assert cli.main(["create", "-f", str(path)]) == 0
    made = http.post("/create/kinds/warmup_cosine", data={**said, "do": "create"})
    assert made.status_code == 303, made.text  # the same spec finds the session that is there
    kept = http.get(f"/sessions/{unique_name}/spec.yaml")
    assert kept.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(kept.text) == http.get(f"/sessions/{unique_name}/spec.json").json()
