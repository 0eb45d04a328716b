"""What a cut makes of the levels."""

from collections.abc import Mapping


def lowered(levels: Mapping[str, float], factor: float, floor: float) -> dict[str, float]:
    """Return the levels that `factor` (below 1) lowers, none below `floor`.

    A level that is at the floor or below it already is left where it is, and out; so is one that
    would be 0.
    """
    cut = {group: max(level * factor, floor) for group, level in levels.items()}
    return {group: level for group, level in cut.items() if 0.0 < level < levels[group]}
