"""The content of a chart as a table, for visitors who read it instead."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from pacesetter_service.dashboard.drawing import Line
from pacesetter_service.dashboard.wording import rate

ROWS = 25
"""About how many rows a table has."""


def table_of(lines: Sequence[Line], place: str = "step") -> Markup:
    """Return curves as a table that opens on demand, with the values at one place in each row.

    Curves with the same name share a column. Between two steps of a curve, the value of the earlier
    one holds.

    Args:
        lines: The curves.
        place: The heading of the first column.
    """
    columns: dict[str, dict[float, float]] = {}
    for line in lines:
        known = columns.setdefault(line.name, {})
        pairs = zip(line.steps, line.values, strict=True)
        known |= {step: value for step, value in pairs if value is not None}
    columns = {name: dict(sorted(each.items())) for name, each in columns.items() if each}
    steps = sorted({step for each in columns.values() for step in each})
    if not steps:
        return Markup("")
    chosen = steps if len(steps) <= ROWS else _spread(steps)
    heads = [place, *columns]
    rows = [
        [f"{step:,.6g}", *(rate(_at(each, step)) for each in columns.values())] for step in chosen
    ]
    return Markup(
        '<details class="twin"><summary>The same as a table</summary><div class="scroll"'
        ' tabindex="0" role="region" aria-label="The same as a table"><table><thead><tr>{}</tr>'
        "</thead><tbody>{}</tbody></table></div></details>"
    ).format(
        Markup("").join(
            Markup('<th scope="col" class="number">{}</th>').format(each) for each in heads
        ),
        Markup("").join(
            Markup("<tr>{}</tr>").format(
                Markup("").join(Markup('<td class="number">{}</td>').format(each) for each in row)
            )
            for row in rows
        ),
    )


def _spread(steps: Sequence[float]) -> list[float]:
    """Return some of the steps, spaced evenly between the first and the last."""
    wanted = np.linspace(steps[0], steps[-1], ROWS)
    places = [max(bisect_right(steps, each) - 1, 0) for each in wanted]
    return [steps[place] for place in dict.fromkeys(places)]


def _at(known: dict[float, float], step: float) -> float | None:
    """Return the value that holds at a step; None before the first and after the last step."""
    steps = list(known)
    place = bisect_right(steps, step)
    if place in (0, len(steps)) and step not in known:
        return None
    return known[steps[place - 1]]
