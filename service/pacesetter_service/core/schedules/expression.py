"""Laws written as one line of arithmetic, where other libraries take a function.

Python's parser reads the text, which is then turned into a few kinds of frozen nodes; whatever is
not known by name here is refused. None of it is ever run as Python.
"""

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.model import did_you_mean
from pacesetter_service.core.schedules import numeric
from pacesetter_service.core.schedules.base import Base, Schedule, Steps, Values
from pacesetter_service.core.schedules.cost import Cost, work

MAX_TEXT = 1000
"""The longest text of an expression."""

MAX_NODES = 256
"""The most numbers, names and operations in an expression."""

MAX_DEPTH = 64
"""How deep operations may be nested."""

MAX_COSTLY = 16
"""The most operations that the C library computes number by number, for the sake of their bits."""

COSTLY = frozenset({"**", "exp", "log", "tan", "tanh"})

CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ \n.,()+-*/%<>=!^:"
)
"""The characters that a text may have; without quotes and backslashes it has no string literals."""

CONSTANTS = {"pi": math.pi, "e": math.e}

VARIABLES = ("t", "T", "base")


def _all(join: Callable[[Values, Values], Values], *several: Values) -> Values:
    return reduce(join, several)


def _truth(value: np.ndarray[Any, Any]) -> Values:
    return value.astype(np.float64)


def _where(test: Values, yes: Values, no: Values) -> Values:
    return np.where(test != 0, yes, no)


def _power(base: Values, exponent: Values) -> Values:
    if base.size == 1:
        return numeric.power(np.broadcast_to(base, exponent.shape), exponent)
    return numeric.power(base, np.broadcast_to(exponent, base.shape))


OPERATIONS: dict[str, Callable[..., Values]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": _power,
    "negative": np.negative,
    "positive": np.positive,
    "<": lambda a, b: _truth(a < b),
    "<=": lambda a, b: _truth(a <= b),
    ">": lambda a, b: _truth(a > b),
    ">=": lambda a, b: _truth(a >= b),
    "==": lambda a, b: _truth(a == b),
    "!=": lambda a, b: _truth(a != b),
    "and": lambda *several: _all(lambda a, b: np.where(a != 0, b, a), *several),
    "or": lambda *several: _all(lambda a, b: np.where(a != 0, a, b), *several),
    "not": lambda a: _truth(a == 0),
}
"""The operators, on float64 arrays; truth is 1 and 0, and all but 0 is true, as in Python."""

FUNCTIONS: dict[str, tuple[int, int, Callable[..., Values]]] = {
    "sin": (1, 1, np.sin),
    "cos": (1, 1, np.cos),
    "tan": (1, 1, numeric.tan),
    "tanh": (1, 1, numeric.tanh),
    "exp": (1, 1, numeric.exp),
    "log": (1, 1, numeric.log),
    "sqrt": (1, 1, np.sqrt),
    "abs": (1, 1, np.abs),
    "floor": (1, 1, np.floor),
    "ceil": (1, 1, np.ceil),
    "min": (2, 16, lambda *several: _all(np.minimum, *several)),
    "max": (2, 16, lambda *several: _all(np.maximum, *several)),
    "clip": (3, 3, lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "where": (3, 3, _where),
}
"""The functions: the least and the most arguments that they take, and what they compute."""

ADVICE = {
    "epoch": "write t",
    "epochs": "write t",
    "step": "write t",
    "steps": "write t",
    "x": "write t",
    "lr": "write base",
    "base_lr": "write base",
    "initial_lr": "write base",
    "total_steps": "write T",
    "num_training_steps": "write T",
    "max_steps": "write T",
    "pow": "write a ** b",
    "power": "write a ** b",
    "int": "write floor(x)",
    "float": "leave it out",
    "round": "write floor(x + 0.5)",
    "ln": "write log",
    "maximum": "write max",
    "minimum": "write min",
    "fabs": "write abs",
    "True": "write 1",
    "False": "write 0",
}
"""What to write instead of names that people know from other languages."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number literal."""

    value: float

    def evaluate(self, names: Mapping[str, Values]) -> Values:  # noqa: ARG002 - one for all nodes
        """Return the number, as an array of length one."""
        return np.array([self.value])


@dataclass(frozen=True, slots=True)
class Name:
    """A variable or a constant."""

    name: str

    def evaluate(self, names: Mapping[str, Values]) -> Values:
        """Return what the name stands for."""
        return names[self.name]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or a function, with its operands."""

    name: str
    operands: "tuple[Node, ...]"

    def evaluate(self, names: Mapping[str, Values]) -> Values:
        """Apply it; every operand is evaluated, even those that a condition leaves unused."""
        law = OPERATIONS.get(self.name) or FUNCTIONS[self.name][2]
        return law(*(operand.evaluate(names) for operand in self.operands))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A chain such as `a < b < c`, in which every term is evaluated once."""

    names: tuple[str, ...]
    operands: "tuple[Node, ...]"

    def evaluate(self, names: Mapping[str, Values]) -> Values:
        """Compare neighbours; the chain holds if every comparison does."""
        terms = [operand.evaluate(names) for operand in self.operands]
        pairs = zip(self.names, pairwise(terms), strict=True)
        return _all(np.minimum, *(OPERATIONS[name](*pair) for name, pair in pairs))


Node = Number | Name | Operation | Comparison

BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}

UNARY: dict[type[ast.unaryop], str] = {ast.USub: "negative", ast.UAdd: "positive", ast.Not: "not"}

COMPARING: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


class Reader:
    """Turns a text into nodes, or says at which column it cannot."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\n", " ")
        self._indent = len(self._text) - len(self._text.lstrip())
        self._nodes = 0
        self._costly = 0

    def read(self) -> Node:
        """Return the tree.

        Raises:
            PydanticCustomError: The text is no expression, or has something in it that is unknown.
        """
        for column, character in enumerate(self._text):
            if character not in CHARACTERS:
                raise _refused(column + 1, f"{character!r} means nothing here; take it out")
        try:
            tree = ast.parse(self._text.strip(), mode="eval")
        except SyntaxError as error:
            column = (error.offset or 1) + self._indent
            raise _refused(column, f"{error.msg}; write one expression of t") from None
        except (ValueError, RecursionError, MemoryError):
            raise _refused(1, f"nested too deep; {MAX_DEPTH} levels are allowed") from None
        return self._node(tree.body, 1)

    def _node(self, tree: ast.expr, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._refuse(
                tree, f"too much; {MAX_NODES} operations, {MAX_DEPTH} deep, are allowed"
            )
        node: Node
        match tree:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                node = self._number(tree, value)
            case ast.Name(id=name) if name in VARIABLES or name in CONSTANTS:
                node = Name(name)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in BINARY:
                self._count(tree, BINARY[type(operator)])
                node = self._apply(BINARY[type(operator)], depth, left, right)
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in UNARY:
                node = self._apply(UNARY[type(sign)], depth, operand)
            case ast.BoolOp(op=operator, values=values):
                name = "and" if isinstance(operator, ast.And) else "or"
                node = self._apply(name, depth, *values)
            case ast.Compare() if all(type(operator) in COMPARING for operator in tree.ops):
                node = self._comparison(tree, depth)
            case ast.IfExp(test=test, body=yes, orelse=no):
                node = self._apply("where", depth, test, yes, no)
            case ast.Call():
                node = self._call(tree, depth)
            case _:
                raise self._refuse(tree, self._why_not(tree))
        return node

    def _apply(self, name: str, depth: int, *operands: ast.expr) -> Node:
        return Operation(name, tuple(self._node(operand, depth + 1) for operand in operands))

    def _number(self, tree: ast.expr, value: float) -> Node:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            raise self._refuse(tree, "this number is too large; 1.7e308 is the largest")
        return Number(number)

    def _comparison(self, tree: ast.Compare, depth: int) -> Node:
        """Return `a < b < c` as `a < b and b < c`, as Python means it."""
        terms = tuple(self._node(term, depth + 1) for term in (tree.left, *tree.comparators))
        return Comparison(tuple(COMPARING[type(operator)] for operator in tree.ops), terms)

    def _call(self, tree: ast.Call, depth: int) -> Node:
        if not isinstance(tree.func, ast.Name) or tree.func.id not in FUNCTIONS:
            raise self._refuse(tree.func, self._why_not(tree.func, of=FUNCTIONS))
        name = tree.func.id
        fewest, most, _ = FUNCTIONS[name]
        starred = any(isinstance(argument, ast.Starred) for argument in tree.args)
        if tree.keywords or starred or not fewest <= len(tree.args) <= most:
            some = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise self._refuse(tree, f"{name} takes {some} unnamed argument(s); correct them")
        self._count(tree, name)
        return self._apply(name, depth, *tree.args)

    def _count(self, tree: ast.expr, name: str) -> None:
        self._costly += name in COSTLY
        if self._costly > MAX_COSTLY:
            names = ", ".join(sorted(COSTLY))
            raise self._refuse(tree, f"too many of {names}; {MAX_COSTLY} together are allowed")

    def _why_not(self, tree: ast.expr, of: Mapping[str, object] | None = None) -> str:
        match tree:
            case ast.Attribute(attr=name):
                written = self._text.strip()[tree.col_offset : tree.end_col_offset]
                known = name in FUNCTIONS or name in CONSTANTS
                return f"{written[-40:]}: " + (f"write {name}" if known else _advice(name, of))
            case ast.Name(id=name):
                return f"{name}: {_advice(name, of)}"
            case ast.Constant(value=value):
                return f"{value!r}: {ADVICE.get(repr(value), 'only real numbers are allowed')}"
            case ast.Lambda():
                return "leave out what stands before the colon, and call its variable t"
            case ast.BinOp(op=ast.BitXor()):
                return "^ is no power: write **"
            case _:
                return "this is no arithmetic of t, T and base; take it out"

    def _refuse(self, tree: ast.expr, what: str) -> PydanticCustomError:
        return _refused(tree.col_offset + self._indent + 1, what)


def _refused(column: int, what: str) -> PydanticCustomError:
    return PydanticCustomError(
        "bad_expression", "Column {column}: {what}", {"column": column, "what": what}
    )


def _advice(name: str, of: Mapping[str, object] | None) -> str:
    known = sorted(of or (*VARIABLES, *CONSTANTS))
    hint = did_you_mean(name, known)
    return ADVICE.get(name) or f"there is no such name.{hint} Known here: {', '.join(known)}"


def names_in(node: Node) -> set[str]:
    """Return the names that a tree uses."""
    match node:
        case Name(name=name):
            return {name}
        case Operation(operands=operands) | Comparison(operands=operands):
            return set().union(*map(names_in, operands))
        case _:
            return set()


def size_of(node: Node) -> tuple[int, int]:
    """Count the numbers, names and operations of a tree, and how many operations are costly."""
    match node:
        case Operation(operands=operands) | Comparison(operands=operands):
            sizes = [size_of(operand) for operand in operands]
            nodes, costly = sum(each for each, _ in sizes), sum(each for _, each in sizes)
            return nodes + len(operands), costly + (getattr(node, "name", "") in COSTLY)
        case _:
            return 1, 0


class Expression(Schedule):
    """What other libraries take as a function, written as one line of arithmetic.

    Names: `t` is the step, 0 at first, `T` is `total_steps`, `base` the base value, and `pi` and
    `e`. Operators: `+ - * / // % **`, comparisons, `and`, `or`, `not`, `a if test else b`.
    Functions: sin, cos, tan, tanh, exp, log, sqrt, abs, floor, ceil, min, max, clip(x, low, high)
    and where(test, a, b). All of them on float64, as Python does them; where Python raises, as for
    `1 / 0`, there is infinity or NaN, which previews show and sealing refuses.

    torch's LambdaLR multiplies the base: its `lambda epoch: 0.95 ** epoch` is `base * 0.95 ** t`.
    """

    formula: ClassVar[str] = "value, evaluated at t"
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.LambdaLR; keras.callbacks.LearningRateScheduler"
    )
    example: ClassVar[dict[str, Any]] = {"value": "base * 0.95 ** (t // 10)"}

    kind: Literal["expression"] = "expression"
    value: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    total_steps: StepCount | None = None

    @field_validator("value")
    @classmethod
    def _readable(cls, value: str) -> str:
        Reader(value).read()
        return value

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.total_steps is None and "T" in names_in(self._tree):
            yield PydanticCustomError("no_total_steps", "T is used: say what it is (`total_steps`)")

    @cached_property
    def _tree(self) -> Node:
        return Reader(self.value).read()

    def own_cost(self) -> Cost:  # noqa: D102
        nodes, costly = size_of(self._tree)
        return work(self.passes + nodes, costly)

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        numbers: dict[str, float | Values] = {"t": t, "base": base, **CONSTANTS}
        if self.total_steps is not None:
            numbers["T"] = float(whole(self.total_steps))
        names = {name: np.atleast_1d(np.float64(number)) for name, number in numbers.items()}
        with np.errstate(all="ignore"):
            value = self._tree.evaluate(names)
        return np.array(np.broadcast_to(value, t.shape))
