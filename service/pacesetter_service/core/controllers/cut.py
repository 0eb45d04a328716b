"""How a cut changes the levels."""

from collections.abc import Mapping


def lowered(levels: Mapping[str, float], factor: float, floor: float) -> dict[str, float]:
    """Return the levels that `factor` (below 1) lowers, none below `floor`.

    A level that is at or below the floor already stays as it is and is left out. So is one that
    would become 0.
    """
    cut = {group: max(level * factor, floor) for group, level in levels.items()}
    return {group: level for group, level in cut.items() if 0.0 < level < levels[group]}
