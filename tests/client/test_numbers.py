"""Numbers of other libraries are sent to the bit, or refused by name."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pacesetter import Client, InvalidRequestError
from pacesetter._plain import plain

WIDTHS: list[Callable[[float], Any]] = [np.float16, np.float32, np.float64, torch.tensor, np.array]


@pytest.mark.parametrize("width", WIDTHS)
@given(value=st.floats(-6e4, 6e4, allow_nan=False))
def test_floats_keep_their_bits(width: Callable[[float], Any], value: float) -> None:
    """What is sent is the number that the scalar, tensor or array holds."""
    given_ = width(value)
    sent = plain(given_)
    assert type(sent) is float
    assert sent == given_.item()
    assert json.loads(json.dumps(sent)) == sent


@pytest.mark.parametrize(
    "number",
    [np.int64(3), np.uint8(3), torch.tensor(3), torch.tensor([[3]])[0, 0], np.array(3), True + 2],
)
def test_whole_numbers_stay_whole(number: Any) -> None:
    """A count is sent as one."""
    assert (plain(number), type(plain(number))) == (3, int)


def test_arrays_become_lists_wherever_they_stand() -> None:
    """A description is converted completely, and is not changed itself."""
    table = np.array([0.1, 0.2], dtype=np.float32)
    schedule = {"kind": "table", "values": table, "at": (torch.tensor([1, 2]), np.bool_(1))}
    assert plain({"schedule": schedule, "lr": np.float64(0.1)}) == {
        "schedule": {"kind": "table", "values": table.tolist(), "at": [[1, 2], True]},
        "lr": 0.1,
    }
    assert schedule["values"] is table


def test_what_is_exactly_a_float_is_one() -> None:
    """Other types count where nothing of them is lost; times are written out."""
    assert plain([Decimal("0.5"), Fraction(1, 4), np.longdouble(2)]) == [0.5, 0.25, 2.0]
    assert plain(datetime(2026, 1, 31, tzinfo=UTC)) == "2026-01-31T00:00:00+00:00"
    assert plain(np.str_("cosine")) == "cosine"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, Decimal("0.1")]}, r"a\[1\] is Decimal\('0.1'\), which no float64 is exactly"),
        ({"a": {"b": 1j}}, r"a\.b is a builtins.complex, which is no data"),
        ({"lr": np.longdouble(1) / 3}, "lr is .*, which no float64 is exactly"),
        ({"lr": object()}, "lr is a builtins.object, which is no data: give numbers"),
        ({"groups": {1: 2}}, "groups has the key 1: give text"),
        (b"0.1", "what was given is a builtins.bytes"),
    ],
)
def test_what_is_no_number_is_named(value: Any, message: str) -> None:
    """The message has its place."""
    with pytest.raises(TypeError, match=message):
        plain(value)


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), torch.tensor(float("-inf"))])
def test_what_json_cannot_say_is_named(value: Any) -> None:
    """NaN and infinities are no learning rates."""
    with pytest.raises(ValueError, match=r"limits\.max_lr is (nan|inf|-inf), which JSON has no"):
        plain({"limits": {"max_lr": value}})


def test_scalars_are_taken_wherever_numbers_are(client: Client, unique_name: str) -> None:
    """They work in descriptions, orders and queries; an array in place of a number is refused."""
    rate = np.float32(0.1)
    session = client.create_session(
        unique_name, base_lr=rate, schedule={"kind": "cosine", "total_steps": np.int64(100)}
    )
    assert session.info.base_lr(None) == rate.item()
    assert client.scale(unique_name, torch.tensor(0.5), at=np.int32(7))["effective_step"] == 7
    assert client.lr(unique_name, torch.tensor(7))["step"] == 7
    assert client.orders(unique_name)[0]["action"]["factor"] == 0.5
    with pytest.raises(InvalidRequestError, match="/factor"):
        client.scale(unique_name, np.array([0.5]))
    with pytest.raises(TypeError, match="factor is a builtins"):
        client.scale(unique_name, object())
    with pytest.raises(ValueError, match="base_lr is nan"):
        client.create_session(f"{unique_name}-2", base_lr=float("nan"))


def test_what_stands_in_itself_is_told(client: Client, unique_name: str) -> None:
    """It is refused before it is sent."""
    schedule: dict[str, Any] = {"kind": "chain"}
    schedule["parts"] = [schedule]
    with pytest.raises((ValueError, RecursionError)):
        client.create_session(unique_name, base_lr=0.1, schedule=schedule)
