"""A collection of names, as an argument."""

from __future__ import annotations

from collections.abc import Iterable


def names(given: Iterable[str], what: str) -> frozenset[str]:
    """The names in a collection.

    Args:
        given: the names.
        what: the argument's own name, for the error.

    Raises:
        TypeError: it is one name, which would be taken for a collection of letters.
    """
    if isinstance(given, str):
        raise TypeError(f'{what}="{given}" is one name: pass a collection, {what}=["{given}"]')
    return frozenset(given)
