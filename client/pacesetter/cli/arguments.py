"""Parsing the command line: lengths of time, lengths in steps, labels, specs."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from pacesetter.cli.exits import REFUSED, USAGE, CommandError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def seconds(text: str) -> float:
    """Read a length of time, such as 90d.

    Raises:
        ValueError: It is not a length of time.
    """
    with suppress(KeyError, ValueError):
        found = float(text[:-1]) * _SECONDS[text[-1:]]
        if isfinite(found):
            return found
    raise ValueError(f"{text!r} is no length of time: write 90d, 12h or 30m")


def since(text: str | None) -> float | str | None:
    """Read how long ago something was, such as 10m, or a moment, such as 2026-01-31T08:00:00Z.

    Raises:
        ValueError: It is neither.
    """
    if text is None or "T" in text:
        return text
    return seconds(text)


_LENGTHS = ("epochs", "samples", "tokens")


def length(text: str) -> int | dict[str, float]:
    """Read a length in steps, or in a unit that the session turns into steps.

    Returns:
        A whole number of steps, or `{"fraction": 0.1}` for 10% of the session's `total_steps`, or
        `{"epochs": 5}` for 5epochs; samples and tokens likewise.

    Raises:
        ValueError: It is none of them.
    """
    plain = text.replace("_", "").replace(",", "")
    try:
        if plain.endswith("%"):
            return {"fraction": _finite(plain[:-1]) / 100}
        for unit in _LENGTHS:
            if plain.endswith(unit):
                return {unit: _finite(plain.removesuffix(unit))}
        return int(plain)
    except ValueError:
        raise ValueError(
            f"{text!r} is no length: write a number of steps, 10%, 5epochs, 1e6samples or 1e9tokens"
        ) from None


def _finite(text: str) -> float:
    found = float(text)
    if not isfinite(found):
        raise ValueError(text)
    return found


def labels(given: Iterable[str]) -> dict[str, str]:
    """Read labels, each written name=value.

    Raises:
        ValueError: One is none.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{text!r} is no label: write name=value")
        found[name] = value
    return found


def values(given: Iterable[str]) -> dict[str, Any]:
    """Read parameters, each written name=value; a value is JSON, or else a text.

    Raises:
        ValueError: One is none.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{text!r} is no parameter: write name=value")
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Read a value: as JSON if it is valid JSON, else as the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def document(file: str) -> dict[str, Any]:
    """Read a description from a JSON or YAML file, or from stdin for `-`.

    Raises:
        CommandError: It is no object, or YAML cannot be read here.
        OSError: The file cannot be read.
    """
    shown = "stdin" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(
            REFUSED, f"{shown} is no text in UTF-8: {error.reason}", "name a JSON or YAML file"
        ) from None
    try:
        found = _read(text, shown)
    except RecursionError:
        raise CommandError(REFUSED, f"{shown} is nested too deep", "write it flatter") from None
    if not isinstance(found, dict):
        raise CommandError(
            REFUSED,
            f"{shown} describes nothing: it holds {_kind(found)}",
            'write one JSON or YAML object, such as {"base_lr": 0.1, "schedule": "constant"}',
        )
    return found


def _read(text: str, shown: str) -> Any:  # noqa: ANN401 - whatever stands in it
    try:
        return json.loads(text)
    except ValueError as error:
        mistake = error
    if text.lstrip().startswith("{") and not shown.endswith((".yaml", ".yml")):
        raise CommandError(REFUSED, f"{shown} is no JSON: {mistake}", "correct it at that place")
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise CommandError(
            USAGE,
            f"{shown} is no JSON, and YAML cannot be read here",
            "pip install pyyaml, or write JSON",
        ) from None
    try:
        return yaml.load(text, _with_exponents(yaml))
    # PyYAML lets through what its constructors raise, as for the date 2026-99-99.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        what = f"{shown} is neither JSON nor YAML: {' '.join(str(error).split())}"
        raise CommandError(REFUSED, what, "correct it at that place") from None


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


def _with_exponents(yaml: ModuleType) -> Any:  # noqa: ANN401 - a class of that module
    """Return a safe loader for which 1e-3 is a number, as YAML 1.2 has it; to 1.1 it is a text."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return Loader


def _kind(found: object) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(found), "a number")


def schedule(words: list[str], file: str | None) -> Any:  # noqa: ANN401 - a kind, or an object
    """Read a schedule: a kind and its parameters (cosine total_steps=1000), JSON, or a file.

    Raises:
        ValueError: It is none, or there are two.
    """
    if (not words) == (file is None):
        raise ValueError("name a schedule, such as cosine total_steps=1000, or a file with -f")
    if file is not None:
        return document(file)
    if words[0].startswith("{"):
        found = value_of(" ".join(words))
        if not isinstance(found, dict):
            raise ValueError("that schedule is no JSON object; put it in quotation marks")
        return found
    return {"kind": words[0], **values(words[1:])}


def reference(text: str) -> tuple[str, int | None]:
    """Read a template's name and, after an @, its version.

    Raises:
        ValueError: The version is no number.
    """
    name, at, version = text.partition("@")
    if at and not version.isdecimal():
        raise ValueError(f"{text!r} names no version: write name@3")
    return name, int(version) if at else None
