"""Pictures of what orders would do: the curve without and with them, after the steps before."""

from markupsafe import Markup

from pacesetter_service.dashboard.drawing import Line, Mark, chart
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.dashboard.twins import table_of
from pacesetter_service.runtime.operator import Rehearsal
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.values import read_forecast
from pacesetter_service.runtime.service import Service

BEFORE = 4
"""One part in this many of the picture shows the steps before."""

WIDTH = 640
"""The width of the picture, which takes half of the page."""

POINTS = 120
"""About how many points of the steps before are drawn."""


async def draw_rehearsal(service: Service, name: str, found: Rehearsal) -> Markup:
    """Draw the curve without and with some orders, after the steps before."""
    start = (await read_facts(service, name)).session.spec.start_step
    last = max([*found.after.steps, *found.before.steps], default=found.step)
    first = max(found.step - max((last - found.step) // (BEFORE - 1), 1), start)
    lines = []
    if first < found.step:
        count = found.step + 1 - first
        led = await read_forecast(service, name, first, count, POINTS, lambda curve: curve)
        lines += _lines(led, "", "with the order")
    lines += _lines(found.before, "dashed before", "without it")
    lines += _lines(found.after, "", "with the order")
    picture = chart(
        lines,
        label=f"The curve from step {found.step} on, before (dashed) and after",
        marks=[Mark(found.step, "order", f"It would hold from step {found.step} on.")],
        from_zero=True,
        width=WIDTH,
        axis=(first, max(last, found.step + 1)),
    )
    return picture + table_of(lines)


def _lines(curve: Curve, look: str, which: str) -> list[Line]:
    rates = [name for name in curve.names if name.endswith("lr")] or curve.names
    return [
        Line(
            f"{name} {which}",
            curve.steps,
            curve.block[curve.names.index(name)].tolist(),
            colour,
            look,
        )
        for colour, name in enumerate(rates[:6])
    ]
