"""What holds outside a law's range: before its first step, and past its last one.

Within the range every policy gives the same bits.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from pacesetter_service.core.schedules.numeric import Floats

OutOfRange = Literal["hold", "bounce", "extrapolate", "error"]
"""`hold` the value at the nearer end, `bounce` the way back and forth again, `extrapolate` the
formula as it stands, `error` nothing: sealing is refused there."""


def inside(t: Floats, first: float, last: float, out_of_range: OutOfRange) -> Floats:
    """Return the time within the range `[first, last]` at which a law is evaluated for each `t`.

    Args:
        t: Local times, shape (n,).
        first: The first step of the range.
        last: Its last step, not below `first`.
        out_of_range: The policy. `extrapolate` leaves every time as it is; `error` gives the times
            of `hold`, and leaves the refusal to `refused`.

    Returns:
        shape (n,); a `t` in the range is itself, to the bit.
    """
    match out_of_range:
        case "extrapolate":
            return t
        case "bounce" if first < last:
            there = np.mod(t - first, 2.0 * (last - first))
            folded = first + np.minimum(there, 2.0 * (last - first) - there)
            return np.where((first <= t) & (t <= last), t, folded)
        case _:
            return np.clip(t, first, last)


def refused(
    values: Floats, t: Floats, first: float, last: float, out_of_range: OutOfRange
) -> Floats:
    """Return the values, with NaN outside the range if the policy is `error`."""
    if out_of_range != "error":
        return values
    return np.where((t < first) | (t > last), np.nan, values)


def of_all(policies: Iterable[OutOfRange]) -> OutOfRange:
    """Return the policy of several laws together, at least one.

    `error` if any refuses, `hold` if all hold; `bounce` if some bounce and the others hold.
    """
    found = set(policies)
    if "error" in found:
        return "error"
    if "extrapolate" in found:
        return "extrapolate"
    return "bounce" if "bounce" in found else "hold"
