"""Schedules written as one line of arithmetic."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydantic import ValidationError
from torch.optim import lr_scheduler as torch_lr

from core.torch_schedulers import Floats, closed_form
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.expression import (
    COSTLY,
    MAX_COSTLY,
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    OPERATIONS,
    Number,
    Operation,
    names_in,
)


def ours(text: str, t: Any, base: float = 0.1, total: int | None = 100) -> Floats:
    """Evaluate an expression."""
    spec = {"kind": "expression", "value": text, "total_steps": total}
    return Schedule.parse(spec).values(np.atleast_1d(np.asarray(t, dtype=np.float64)), base)


def smallest(*several: float) -> float:
    """Python's min, but NaN where any of them is."""
    return math.nan if any(math.isnan(each) for each in several) else min(several)


def largest(*several: float) -> float:
    """Python's max, but NaN where any of them is."""
    return math.nan if any(math.isnan(each) for each in several) else max(several)


PYTHON: dict[str, Any] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "tanh": math.tanh,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "min": smallest,
    "max": largest,
    "clip": lambda x, low, high: smallest(largest(x, low), high),
    "where": lambda test, yes, no: yes if test else no,
    "pi": math.pi,
    "e": math.e,
    "T": 100.0,
    "base": 0.1,
}

leaves = st.one_of(
    st.sampled_from(["t", "T", "base", "pi", "e"]),
    st.floats(0, 1000).map(repr),
    st.sampled_from(["0.0", "0.5", "1.0", "2.0", "3.0", "10.0"]),
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return larger expressions made of smaller ones."""
    binary = st.sampled_from(
        ["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!="]
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, binary, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "*", "and", "or"]), inner),
        st.builds("{}({})".format, st.sampled_from(["-", "+", "abs"]), inner),
        st.builds("(not {})".format, inner),
        st.builds(
            "{}({})".format,
            st.sampled_from(["sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "floor", "ceil"]),
            inner,
        ),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("{}({}, {}, {})".format, st.sampled_from(["clip", "where"]), inner, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("({} < {} <= {})".format, inner, inner, inner),
    )


expressions = st.recursive(leaves, grown, max_leaves=12).filter(
    lambda text: sum(text.count(name) for name in COSTLY) <= MAX_COSTLY
)


@given(expressions, st.integers(0, 200))
def test_an_expression_is_what_python_makes_of_it(text: str, step: int) -> None:
    """Where Python gives a real number for the same text, ours is the same to the bit."""
    values = ours(text, [0.0, step])
    assert values.shape == (2,)
    try:
        expected = eval(text, {"__builtins__": {}}, PYTHON | {"t": float(step)})
    except (ZeroDivisionError, OverflowError, ValueError):
        return
    if not isinstance(expected, complex) and math.isfinite(expected):
        assert values[1] == float(expected)


@given(expressions, st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_blocks_of_an_expression_are_parts_of_the_whole(text: str, lengths: list[int]) -> None:
    """The value at a step does not depend on which others are evaluated with it."""
    edges = np.cumsum([0, *lengths])
    blocks = [ours(text, np.arange(start, end)) for start, end in pairwise(edges)]
    assert_array_equal(np.concatenate(blocks), ours(text, np.arange(edges[-1])))


@pytest.mark.parametrize(
    ("python", "text"),
    [
        (lambda epoch: 0.95**epoch, "base * 0.95 ** t"),
        (lambda epoch: 0.65 ** (epoch // 30), "base * 0.65 ** (t // 30)"),
        (lambda epoch: 1 / (1 + 0.1 * epoch), "base * (1 / (1 + 0.1 * t))"),
        (lambda epoch: min(1, (epoch + 1) / 10), "base * min(1, (t + 1) / 10)"),
        (lambda epoch: (1 - epoch / 200) ** 0.9, "base * (1 - t / 200) ** 0.9"),
        (
            lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 200)),
            "base * (0.5 * (1 + cos(pi * t / 200)))",
        ),
        (lambda epoch: 1.0 if epoch < 30 else 0.1, "base * (1.0 if t < 30 else 0.1)"),
    ],
)
def test_a_lambda_of_torch_is_an_expression(python: Any, text: str) -> None:
    """What users write as LambdaLR has the same bits as an expression, whole numbers or not."""
    torchs = closed_form(lambda o: torch_lr.LambdaLR(o, python), range(150))
    assert_array_equal(ours(text, np.arange(150)), torchs)


def test_a_long_row_of_truths_is_not_deep() -> None:
    """Adjacent terms do not count as nested ones."""
    assert ours(" or ".join("t" * 150), [0, 2]).tolist() == [0.0, 2.0]
    assert ours("<".join(["t", *"1" * 99]), [0, 2]).tolist() == [0.0, 0.0]


def test_whole_numbers_are_floats() -> None:
    """Huge powers cost nothing and overflow to infinity, which is not sealed."""
    assert ours("9 ** 9 ** 9 ** 9", 0).tolist() == [math.inf]
    assert ours("(-10) ** 309 + 0 * t", 0).tolist() == [-math.inf]
    assert np.isnan(ours("(-8) ** (1 / 3)", 0)).all()
    assert ours("base / t", [0, 1]).tolist() == [math.inf, 0.1]
    assert np.isnan(ours("base if t > 0 else 0 / 0", [0, 1])).tolist() == [True, False]


def test_the_base_may_change_from_step_to_step() -> None:
    """In a repeat with falling peaks the expression uses the base of each cycle."""
    law = {"kind": "expression", "value": "base * (1 - t / 4)"}
    spec = {"kind": "repeat", "schedule": law, "period": 4, "peak_decay": 0.5}
    values = Schedule.parse(spec).values(np.arange(8.0), 1.0)
    assert values.tolist() == [1.0, 0.75, 0.5, 0.25, 0.5, 0.375, 0.25, 0.125]


def test_the_end_may_be_in_other_units() -> None:
    """`T` is `total_steps`, converted to steps."""
    spec = {"kind": "expression", "value": "T - t", "total_steps": {"epochs": 3}}
    law = resolve(Schedule.parse(spec), Clock(steps_per_epoch=7))
    assert law.values(np.array([1.0]), 0.1).tolist() == [20.0]


REFUSED: dict[str, tuple[str, str]] = {
    "a module's function": ("0.5 * np.cos(t)", "Column 7: np.cos: write cos"),
    "a module's constant": ("math.pi", "Column 1: math.pi: write pi"),
    "torch's name": ("  0.9 ** epoch", "Column 10: epoch: write t"),
    "a whole lambda": ("lambda epoch: 0.9 ** epoch", "leave out what stands before the colon"),
    "a power of another language": ("t ^ 2", "Column 1: ^ is no power: write **"),
    "a rounded step": ("int(t / 10)", "Column 1: int: write floor(x)"),
    "a misspelt name": ("bse * 2", "Column 1: bse: there is no such name. Did you mean 'base'?"),
    "a misspelt function": ("sqr(t)", "Did you mean 'sqrt'?"),
    "a function of torch": ("torch.sigmoid(t)", "torch.sigmoid: there is no such name"),
    "an attribute": ("t.__class__", "t.__class__: there is no such name"),
    "a call of a result": ("(t)(1)", "t: there is no such name"),
    "a call of a call": ("cos(t)(1)", "this is no arithmetic"),
    "a name of Python's": ("__import__(t)", "Column 1: __import__: there is no such name"),
    "too few arguments": ("min(t)", "Column 1: min takes 2 to 16"),
    "too many arguments": ("base + cos(t, 1)", "Column 8: cos takes 1 unnamed"),
    "a named argument": ("clip(t, low=1, high=2)", "clip takes 3 unnamed"),
    "an unpacked argument": ("max(*t)", "max takes 2 to 16"),
    "a text": ("'a' * 9", 'Column 1: "\'" means nothing here'),
    "an index": ("t[0]", "Column 2: '[' means nothing here"),
    "a comprehension": ("sum(t for t in t)", "sum: there is no such name"),
    "a generator": ("max(1, (t for t in t))", "this is no arithmetic"),
    "a pair": ("t, t", "this is no arithmetic"),
    "an assignment": ("(t := 2)", "this is no arithmetic"),
    "a membership": ("t in t", "this is no arithmetic"),
    "an imaginary number": ("2j * t", "Column 1: 2j: only real numbers"),
    "a truth value": ("True", "True: write 1"),
    "two lines": ("t\nt", "Column 3: invalid syntax"),
    "half an expression": ("(t + 1", "'(' was never closed"),
    "a statement": ("import os", "invalid syntax"),
    "a number beyond float64": ("t * 1e999", "Column 5: this number is too large"),
    "a whole number beyond float64": ("1" * 400, "Column 1: this number is too large"),
    "another alphabet": ("tеst", "Column 2: 'е' means nothing here"),  # noqa: RUF001 - a Cyrillic e
    "a comment": ("t # fast", "Column 3: '#' means nothing here"),
    "nothing": ("", "at least 1 character"),
    "blanks": ("  ", "invalid syntax"),
    "a text that is too long": ("t" * (MAX_TEXT + 1), f"at most {MAX_TEXT} characters"),
    "too many operations": ("+".join("t" * MAX_NODES), "too much"),
    "many comparisons": ("<".join("t" * 400), "too much"),
    "brackets": ("(" * 180 + "t" + ")" * 180 + "+ x", "x: write t"),
    "deep brackets": ("(" * 499 + "t" + ")" * 499, "too many nested parentheses"),
    "deep signs": ("-" * 999 + "t", f"{MAX_DEPTH} deep"),
    "deep denials": ("not " * 240 + "t", f"{MAX_DEPTH} deep"),
    "many powers": ("+".join(["t**2"] * 17), "Column 81: too many of **, exp"),
    "deep powers": ("**".join("t" * 300), "too many of **"),
    "deep calls": ("abs(" * 150 + "t" + ")" * 150, f"{MAX_DEPTH} deep"),
    "deep choices": ("t if t else " * 80 + "t", f"{MAX_DEPTH} deep"),
    "deep attributes": ("a." * 400 + "cos", "write cos"),
    "an unknown end": ("base * t / T", "say what it is (`total_steps`)"),
}


@pytest.mark.parametrize(("text", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_expression_is_refused(text: str, hint: str) -> None:
    """The error names the column and says what to write instead."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse({"kind": "expression", "value": text})
    [error] = caught.value.errors()
    assert hint in error["msg"]


@given(st.text(max_size=60) | st.text("t()+-*/.,<>=! 19eifnotlambd:^\n%", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text is a schedule or an error at the field; no exception escapes."""
    try:
        law = Schedule.parse({"kind": "expression", "value": text})
    except ValidationError:
        return
    assert law.values(np.arange(3.0), 0.1).shape == (3,)


def test_trees_are_plain_frozen_nodes() -> None:
    """A tree holds operations by name and equals another one of the same text."""
    tree = Operation("+", (Number(1.0), Operation("negative", (Number(2.0),))))
    assert tree == Operation("+", (Number(1.0), Operation("negative", (Number(2.0),))))
    assert names_in(tree) == set()
    assert {"+", "**", "and"} <= set(OPERATIONS)
