"""Draw what each action does to a running training: `make docs`.

Each picture is of two sessions that are really driven, step by step: one is left alone, and one is
given the order. Where the order is about what a controller does, both are told of the same loss.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Command, Reading, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec

IMAGES = Path(__file__).parent / "img/actions"

Body = dict[str, Any]


class Scene(NamedTuple):
    """What a picture shows: the order, at a step of a session.

    Attributes:
        body: The order, as it is sent.
        at: The first step that it holds for.
        schedule: The session's.
        before: Orders that both sessions were given earlier, by their steps.
        more: What else the session is created with.
        steps: How many steps are drawn.
    """

    body: Body
    at: int = 60
    schedule: Body = {"kind": "cosine", "total_steps": 200}  # noqa: RUF012 - never changed
    before: dict[int, Body] = {}  # noqa: RUF012
    more: Body = {}  # noqa: RUF012
    steps: int = 200


CONSTANT = {"kind": "constant"}
PLATEAU = {"kind": "plateau", "metric": "loss", "factor": 0.5, "patience": 14}
DECAY = {"kind": "cosine", "total_steps": 120}
STAGES = {
    "kind": "switch",
    "metric": "loss",
    "stages": [{"when": {"kind": "by_hand"}, "schedule": DECAY}],
}

SCENES: dict[str, Scene] = {
    "scale": Scene({"kind": "scale", "factor": 0.5}),
    "set": Scene({"kind": "set", "lr": 0.03, "over": 20}),
    "hold": Scene({"kind": "hold"}),
    "release": Scene({"kind": "release"}, at=110, before={60: {"kind": "hold"}}),
    "cooldown": Scene({"kind": "cooldown", "steps": 50}, at=100, schedule=CONSTANT),
    "rewarm": Scene({"kind": "rewarm", "steps": 40}),
    "retime": Scene({"kind": "retime", "total_steps": 260}, steps=270),
    "replace": Scene({"kind": "replace", "schedule": DECAY}, at=80, schedule=CONSTANT),
    "revert": Scene({"kind": "revert"}, at=110, before={50: {"kind": "set", "lr": 0.02}}),
    "limit": Scene(
        {"kind": "limit", "min_lr": 0.02},
        at=40,
        schedule=CONSTANT,
        more={"controllers": [PLATEAU]},
    ),
    "switch": Scene({"kind": "switch"}, at=80, schedule=CONSTANT, more={"controllers": [STAGES]}),
}
"""The scene of each kind of action."""


def main() -> None:
    """Write a picture for each kind of action."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for kind in Action.kinds:
        (IMAGES / f"{kind}.svg").write_text(picture(kind))


def picture(kind: str) -> str:
    """Draw the learning rates of a session that is left alone, and of one that is given the order.

    Raises:
        KeyError: The kind has no scene: give it one in `SCENES`.
    """
    scene = SCENES[kind]
    return drawn(scene, driven(scene, ordered=False), driven(scene, ordered=True))


def driven(scene: Scene, *, ordered: bool) -> list[float]:
    """Train in turn: take the rate of a step, report a loss that has stopped falling, go on."""
    spec = {"name": "drawn", "base_lr": 0.1, "schedule": scene.schedule, **scene.more}
    session = create(SessionSpec.model_validate(spec))
    orders = {**scene.before, **({scene.at: scene.body} if ordered else {})}
    rates = []
    for step in range(scene.steps):
        if step in orders:
            session = told(session, Act(Action.parse(orders[step]), step, "operator"))
        session = told(session, Seal(step, 1))
        rates.append(float(session.timelines["lr"].values(step, 1)[0]))
        if session.spec.controllers:
            session = told(session, Report((Reading(0, step, "loss", 1.0),)))
    return rates


def told(session: Session, command: Command) -> Session:
    """Return the session after a command."""
    return evolve_all(session, decide(session, command).events)


# The picture ------------------------------------------------------------------------------------

WIDTH, HEIGHT = 720, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 34, 28
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.order{font-weight:600;fill:#c2410c}"
    ".axis{stroke:#d0d7de}.here{stroke:#c2410c;stroke-dasharray:3 4}"
    ".curve{fill:none;stroke-width:2.2;stroke-linejoin:round}"
    ".without{stroke:#9aa4af;stroke-dasharray:6 5;stroke-width:1.8}.with{stroke:#3b6fd4}"
    "@media(prefers-color-scheme:dark){text{fill:#c9d1d9}.axis{stroke:#484f58}"
    ".order{fill:#fb923c}.here{stroke:#fb923c}.with{stroke:#7aa2f7}}"
)


def drawn(scene: Scene, without: list[float], with_it: list[float]) -> str:
    """Draw both curves from the first step to the last, and the step of the order."""
    highest = 1.08 * max(*without, *with_it)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<style>{STYLE}</style>{''.join(_parts(scene, without, with_it, highest))}</svg>\n"
    )


def _parts(scene: Scene, without: list[float], rates: list[float], highest: float) -> Iterator[str]:
    def x(step: float) -> float:
        return LEFT + step / (scene.steps - 1) * (WIDTH - LEFT - RIGHT)

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - rate / highest * (HEIGHT - TOP - BOTTOM)

    def curve(name: str, values: list[float]) -> str:
        points = " ".join(f"{x(step):.1f},{y(rate):.1f}" for step, rate in enumerate(values))
        return f'<polyline class="curve {name}" points="{points}"/>'

    for rate in (0.0, 0.05, 0.1, 0.15, 0.2):
        if rate <= highest:
            yield _line("axis", LEFT, y(rate), WIDTH - RIGHT, y(rate))
            yield _text(LEFT - 8, y(rate) + 4, f"{rate:g}", "end")
    for step in range(0, scene.steps, 50):
        yield _text(x(step), HEIGHT - 8, f"{step:,}" if step else "step 0", "middle")
    yield _line("here", x(scene.at), TOP - 8, x(scene.at), HEIGHT - BOTTOM)
    yield curve("without", without)
    yield curve("with", rates)
    for step, body in scene.before.items():
        yield _text(x(step), TOP - 16, f"{body['kind']}, earlier", "middle")
        yield _line("axis", x(step), TOP - 8, x(step), HEIGHT - BOTTOM)
    yield f'<text class="order" x="{x(scene.at):.1f}" y="{TOP - 16}">{_said(scene)}</text>'


def _said(scene: Scene) -> str:
    """Say what is ordered, as short as it can be."""
    fields = [
        f"{name} {value}" for name, value in scene.body.items() if not isinstance(value, dict)
    ]
    return escape(", ".join(fields).removeprefix("kind ") + f" at step {scene.at}")


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
