"""Decoding windows, and refusing them."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter import InvalidAnswerError
from pacesetter._window import Expected, decode

EXPECTED = Expected(attempt=1, series=("lr", "momentum"), start=5, count=3)
HEADER = {
    "attempt": 1,
    "start": 5,
    "count": 3,
    "series": ["lr", "momentum"],
    "horizon": 8,
    "revision": 2,
    "max_lookahead": None,
}
BLOCK = struct.pack("<6d", 0.1, 0.2, 0.3, 0.9, 0.8, 0.7)


def _answer(block: bytes = BLOCK, **changes: Any) -> bytes:
    return json.dumps({**HEADER, **changes}).encode() + b"\n" + block


def test_a_window_has_the_values_by_series():
    """Every series' column holds Python floats, and the header's facts are included."""
    answer = decode(_answer(), EXPECTED)
    assert (answer.horizon, answer.revision, answer.max_lookahead) == (8, 2, None)
    window = answer.window
    assert window is not None
    assert (window.start, window.stop, len(window)) == (5, 8, 3)
    assert window.columns == {"lr": [0.1, 0.2, 0.3], "momentum": [0.9, 0.8, 0.7]}
    assert type(window.columns["lr"][0]) is float
    assert [step in window for step in (4, 5, 7, 8)] == [False, True, True, False]


def test_an_answer_without_a_window_needs_no_newline():
    """Reports alone are acknowledged by plain JSON."""
    content = json.dumps({"attempt": 1, "horizon": 0, "revision": 0}).encode()
    assert decode(content, Expected(1, ("lr",))).window is None


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=50))
def test_every_bit_survives(values: list[float]):
    """What the server sealed is what the optimizer gets, to the last bit."""
    expected = Expected(1, ("lr",), 0, len(values))
    header = {**HEADER, "start": 0, "count": len(values), "series": ["lr"]}
    block = struct.pack(f"<{len(values)}d", *values)
    window = decode(json.dumps(header).encode() + b"\n" + block, expected).window
    assert window is not None
    assert struct.pack(f"<{len(values)}d", *window.columns["lr"]) == block


def _with(value: float, at: int = 1) -> bytes:
    values = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7]
    values[at] = value
    return struct.pack("<6d", *values)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b"[]\n", id="no object"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(_answer(attempt=2), id="another attempt"),
        pytest.param(_answer(attempt=True), id="an attempt that is no number"),
        pytest.param(_answer(start=4), id="another start"),
        pytest.param(_answer(start=None), id="no start"),
        pytest.param(_answer(series=["lr"]), id="a series missing"),
        pytest.param(_answer(series=["momentum", "lr"]), id="series in another order"),
        pytest.param(_answer(count=0, block=b""), id="no steps"),
        pytest.param(_answer(count=4, block=BLOCK + bytes(16)), id="more steps than asked"),
        pytest.param(_answer(count=2), id="a count that does not fit"),
        pytest.param(_answer(count=-3), id="a negative count"),
        pytest.param(_answer(count=3.0), id="a count that is no integer"),
        pytest.param(_answer(block=BLOCK[:-1]), id="short"),
        pytest.param(_answer(block=BLOCK + b"\n"), id="long"),
        pytest.param(_answer(horizon="8"), id="a horizon that is no number"),
        pytest.param(_answer(revision=None), id="no revision"),
        pytest.param(_answer(max_lookahead=-1), id="a negative lookahead"),
        pytest.param(_answer(_with(math.nan)), id="NaN"),
        pytest.param(_answer(_with(math.inf)), id="infinity"),
        pytest.param(_answer(_with(-math.inf)), id="minus infinity"),
        pytest.param(_answer(_with(-1e-300)), id="a negative learning rate"),
        pytest.param(_answer(_with(1.5, at=3)), id="a momentum above 1"),
        pytest.param(_answer(_with(-0.5, at=3)), id="a negative momentum"),
        pytest.param(_answer(_with(math.nan, at=5)), id="NaN in the last place"),
    ],
)
def test_what_breaks_the_contract_is_refused(content: bytes):
    """No fault of the server reaches an optimizer: the answer is refused as a whole."""
    with pytest.raises(InvalidAnswerError):
        decode(content, EXPECTED)


def test_learning_rates_outside_the_users_bounds_are_refused():
    """An absurd value is stopped at the trainer, whatever the server says."""
    narrow = Expected(1, ("lr", "momentum"), 5, 3, lr_bounds=(0.15, 1.0))
    with pytest.raises(InvalidAnswerError, match=r"lr from 0\.1 to 0\.3, outside \[0\.15, 1\]"):
        decode(_answer(), narrow)
    assert decode(_answer(), Expected(1, ("lr", "momentum"), 5, 3, lr_bounds=(0.1, 0.3))).window


def test_huge_finite_values_are_not_mistaken_for_infinite_ones():
    """A sum that overflows does not condemn its parts."""
    block = struct.pack("<6d", 1e308, 1e308, 1e308, 0.5, 0.5, 0.5)
    assert decode(_answer(block), EXPECTED).window is not None
