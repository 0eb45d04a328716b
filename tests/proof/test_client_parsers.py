"""Any input to the client's parsers is accepted, or refused by an error that says so."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pacesetter._errors import HistoryLostError, InvalidAnswerError
from pacesetter._window import Expected, decode
from pacesetter.cli import arguments
from pacesetter.cli.exits import CommandError
from pacesetter.mcp._orders import Order, body_of
from pacesetter.mcp._texts import cleaned, untrusted
from proof.test_parsers import trees

EXPECTED = Expected(attempt=1, series=("lr",), start=4, count=3, lr_bounds=(0.0, 10.0))

HEADER = {"attempt": 1, "horizon": 9, "revision": 0, "start": 4, "count": 2, "series": ["lr"]}

numbers = st.integers(-2, 12) | st.floats() | st.none() | st.text(max_size=3)
headers = st.fixed_dictionaries(
    {}, optional={name: st.just(value) | numbers | trees for name, value in HEADER.items()}
)


@given(
    header=headers | st.just(HEADER) | trees,
    block=st.binary(max_size=32) | st.just(bytes(16)),
    notices=st.none() | trees,
)
@example(header={**HEADER, "attempt": 10**4000}, block=bytes(16), notices=None)
def test_windows(header: Any, block: bytes, notices: Any) -> None:
    """An answer is accepted whole, with rates that a trainer can use, or refused whole."""
    if isinstance(header, dict) and notices is not None:
        header = {**header, "notices": notices}
    try:
        answer = decode(json.dumps(header).encode() + b"\n" + block, EXPECTED)
    except (InvalidAnswerError, HistoryLostError):
        return
    assert answer.window is not None
    assert (answer.window.start, len(block)) == (4, 8 * len(answer.window))
    assert all(0.0 <= rate <= 10.0 for rate in answer.window.columns["lr"])


@given(content=st.binary(max_size=200))
@example(content=b"[" * 100_000)
@example(content=b"1" * 5_000)
def test_bytes_that_are_no_window(content: bytes) -> None:
    """So are any other bytes."""
    with pytest.raises((InvalidAnswerError, HistoryLostError)):
        decode(content, EXPECTED)


YAML = "{}[]:,-&*!|>'\"%@` \n\t#?~0123456789.eE+_abnfyT<="

written = st.text(YAML, max_size=80) | st.text(max_size=80) | trees.map(json.dumps)


@given(text=written)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="[" * 100_000)
@example(text="- 2026-99-99")
@example(text="a: 2026-13-01 25:61:61")
@example(text="!!python/object/apply:os.system ['true']")
@example(text="!!int ''")
@example(text="!!float a")
@example(text="? {a: 1}\n: 2")
@example(text="a: 1" + "0" * 5_000)
@example(text="a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]")
@pytest.mark.parametrize("name", ["spec.yaml", "spec.json"])
def test_specs(name: str, text: str, tmp_path: Path) -> None:
    """A file has an object of JSON values, or the command ends with an error."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        found = arguments.document(str(file))
    except CommandError:
        return
    assert isinstance(found, dict)


def test_a_spec_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A picture in place of a spec is named, without a traceback."""
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(CommandError, match="UTF-8"):
        arguments.document(str(file))


@given(text=st.text(max_size=12) | st.sampled_from(["nand", "infd", "-1d", "1e999d", "nan%"]))
@example(text="nand")
@example(text="nanepochs")
@example(text="inf%")
@example(text="9" * 5_000)
def test_lengths(text: str) -> None:
    """A length is a finite number of seconds, of steps or of a unit, or it is refused."""
    for read in (arguments.seconds, arguments.length):
        try:
            found = read(text)
        except ValueError:
            continue
        values = found.values() if isinstance(found, dict) else [found]
        assert all(math.isfinite(each) for each in values)


@given(given_=st.lists(st.text(max_size=8) | st.just("team=a=b"), max_size=3))
def test_labels(given_: list[str]) -> None:
    """Each label that is read was given as its name and value, or all are refused."""
    try:
        found = arguments.labels(given_)
    except ValueError:
        return
    assert all(f"{name}={value}" in given_ for name, value in found.items())


@given(text=st.text(max_size=12) | st.from_regex(r"[a-z]{1,3}@[0-9²٣]{0,3}", fullmatch=True))
def test_references(text: str) -> None:
    """A template's version is a number, or the reference is refused."""
    try:
        name, version = arguments.reference(text)
    except ValueError:
        return
    assert "@" not in name
    assert version is None or version >= 0


ORDERS: TypeAdapter[Order] = TypeAdapter(Order)

FIELDS = "kind factor lr over steps to to_fraction total_steps groups"
KINDS = "scale set hold release cooldown rewarm retime revert law"
fields, kinds = st.sampled_from(FIELDS.split()), st.sampled_from(KINDS.split())
proposals = trees | st.builds(
    lambda kind, more: {**more, "kind": kind},
    kinds,
    st.dictionaries(fields, numbers | st.integers(0, 10**12), max_size=3),
)


@given(proposal=proposals)
def test_proposals(proposal: Any) -> None:
    """A model's proposal is an order of finite numbers, or is refused before it is sent."""
    try:
        order = ORDERS.validate_python(proposal)
    except ValidationError:
        return
    body = body_of(order, "why", 3)
    assert json.loads(json.dumps(body, allow_nan=False)) == body


@given(text=st.text(max_size=400))
def test_texts_for_models(text: str) -> None:
    """Foreign texts become one bounded line of visible characters; doing so twice is no change."""
    found = untrusted(text)
    shown = found.untrusted_text
    assert len(shown) <= 300
    assert cleaned(shown) == shown.strip()
    assert shown == "" or (shown + " ").isprintable()
    assert found.cut == (len(cleaned(text)) > 300)
