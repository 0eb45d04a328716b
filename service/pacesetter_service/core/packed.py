"""Packed: a row of floats, written as one short text.

A state with a thousand losses is written again with every measurement. As 16 hexadecimal digits a
value (float64, the lowest byte first), it takes less room than decimals, and far less time.
"""

from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, PlainSerializer

_WIRE = np.dtype("<f8")


def pack(values: tuple[float, ...]) -> str:
    """Write values as text, to the bit."""
    return np.array(values, _WIRE).tobytes().hex()


def unpack(text: str) -> tuple[float, ...]:
    """Read what `pack` wrote.

    Raises:
        ValueError: It did not write this.
    """
    return tuple(np.frombuffer(bytes.fromhex(text), _WIRE).tolist())


def _unpacked(values: object) -> object:
    return unpack(values) if isinstance(values, str) else values


Packed = Annotated[
    tuple[float, ...], BeforeValidator(_unpacked), PlainSerializer(pack, return_type=str)
]
"""Values in the order in which they came."""
