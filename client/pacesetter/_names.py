"""A collection of names, as an argument."""

from __future__ import annotations

from collections.abc import Iterable


def names(given: Iterable[str], what: str) -> frozenset[str]:
    """Return the names in a collection.

    Args:
        given: The names.
        what: The argument's own name, for the error.

    Raises:
        TypeError: It is one name, which would be taken for a collection of letters.
    """
    if isinstance(given, str):
        raise TypeError(f'{what}="{given}" is one name: pass a collection, {what}=["{given}"]')
    return frozenset(given)
