"""Write the generated part of the page about controllers: `make docs`.

What stands above the mark in `controllers.md` is written by hand. All below it comes from the code:
texts from the catalogue, pictures from sessions that are really driven, each by a small training
whose metrics follow from the learning rates that it is given.
"""

import inspect
import json
import random
import re
import sys
from collections.abc import Callable, Generator, Iterator
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.predicates import Predicate
from pacesetter_service.core.decide import decide
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.forecast import decimate
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.smoothing import Smoother
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight import pictures

HERE = Path(__file__).parent
PAGE = HERE / "controllers.md"
IMAGES = HERE / "controllers"
TESTS = HERE.parent / "tests"
sys.path.insert(0, str(HERE))

from parameter_tables import LENGTHS, table_of  # noqa: E402 - beside this file
from wrapping import fenced_tables, wrapped  # noqa: E402 - beside this file

MARK = "<!-- `make docs` writes what follows -->\n"
"""Where the generated part begins."""

BASE = 0.1
"""The base learning rate of every picture, but for the range test's."""

Training = Generator[tuple[float, ...], float, None]
"""Takes the rate of a step, as a multiple of the base; gives the metrics measured at that step."""


class Scene(NamedTuple):
    """What a picture shows: a training, its length in steps, and more of the session's spec."""

    training: Callable[[], Training]
    steps: int = 200
    spec: dict[str, Any] = {}  # noqa: RUF012 - never changed


def main() -> None:
    """Write every picture, and the part of the page below the mark."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for kind in catalogue.controllers():
        (IMAGES / f"{kind}.svg").write_text(picture(kind))
    PAGE.write_text(written_by_hand() + MARK + generated())


def written_by_hand() -> str:
    """Return the part of the page above the mark."""
    head, mark, _ = PAGE.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has lost its mark: put this line back: {MARK}")
    return head


def generated() -> str:
    """Return the part of the page below the mark."""
    kinds = catalogue.controllers()
    lines = ["", "## The kinds", "", "| kind | rule |", "|---|---|"]
    lines += [f"| [`{kind}`](#{_anchor(kind)}) | {_formula(kind)} |" for kind in kinds]
    lines += ["", LENGTHS, ""]
    for kind in kinds:
        lines += _entry(kind)
    lines += ["## Predicates", "", "What the stages of `switch` wait for.", ""]
    for name, member in sorted(Predicate.kinds.items()):
        lines += _part(name, member)
    lines += ["## Smoothing", "", "What a metric's `smoothing` can be.", ""]
    for name, member in sorted(Smoother.kinds.items()):
        lines += _part(name, member)
    return wrapped("\n".join(lines).rstrip("\n") + "\n")


def _anchor(kind: str) -> str:
    """Return the anchor that a heading of this text has."""
    return re.sub(r"[^a-z0-9_-]", "", kind.lower())


def _formula(kind: str) -> str:
    return _code(catalogue.describe_controller(kind)["formula"].replace("|", "\\|"))


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _entry(kind: str) -> Iterator[str]:
    about = catalogue.describe_controller(kind)
    yield f"### {kind}"
    yield ""
    yield fenced_tables(about["description"])
    yield ""
    yield f"![{kind}](controllers/{kind}.svg)"
    yield ""
    yield f"- rule: {_code(about['formula'])}"
    yield f"- source: {about['source']}"
    yield f"- example: `{json.dumps(about['example'])}`"
    if about["guards"]:
        yield "- is shown NaN and infinities also where the metric says `guard`"
    yield f"- shown by: {', '.join(f'`{path}`' for path in tests_of(kind))}"
    yield ""
    yield from table_of(about["parameters"])
    yield ""


def _part(name: str, member: type[Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield fenced_tables(inspect.cleandoc(member.__doc__ or ""))
    yield ""
    yield from table_of(catalogue.parameters_of(member))
    yield ""


def tests_of(kind: str) -> list[str]:
    """Return the tests that name a kind."""
    words = [f'"{kind}"']
    if "." not in kind:  # presets are named as their library's own classes
        words.append(f"{Controller.kinds[kind].__name__}(")
    modules = sorted((TESTS / "core").rglob("test_*.py"))
    found = [path for path in modules if any(word in path.read_text() for word in words)]
    homes = [path for path in found if path.parent.name == "controllers"]
    return [str(path.relative_to(TESTS.parent)) for path in homes or found]


def picture(kind: str) -> str:
    """Draw the metrics of a typical training, and the rates that a kind's example makes of them."""
    watches = catalogue.describe_controller(kind)["watches"]
    scene = SCENES.get(kind) or Scene(accuracy if watches[0] in ("top1", "acc") else descent)
    curves = {name: np.array(row) for name, row in _driven(kind, scene).items()}
    kept = decimate(curves, 480)
    return pictures.draw(kept.tolist(), {name: row[kept].tolist() for name, row in curves.items()})


def _driven(kind: str, scene: Scene) -> dict[str, list[float]]:
    """Train in turn: ask for the rate of a step, then report what follows from it."""
    about = catalogue.describe_controller(kind)
    spec = {"name": "picture", "base_lr": BASE, "controllers": [about["example"]], **scene.spec}
    session = create(SessionSpec.model_validate(spec))
    training = scene.training()
    next(training)
    curves: dict[str, list[float]] = {name: [] for name in (*about["watches"], "lr")}
    for step in range(scene.steps):
        session = evolve_all(session, decide(session, Seal(step, 1)).events)
        if session.status == "finished":
            break
        rate = float(session.timelines["lr"].values(step, 1)[0])
        measured = dict(zip(about["watches"], training.send(rate / BASE), strict=True))
        for name, value in {**measured, "lr": rate}.items():
            curves[name].append(value)
        session = _reported(session, step, measured)
    return curves


def _reported(session: Session, step: int, metrics: dict[str, float]) -> Session:
    readings = tuple(Reading(0, step, name, value) for name, value in metrics.items())
    return evolve_all(session, decide(session, Report(readings)).events)


def descent(floor: float = 0.5, noise: float = 0.02, speed: float = 0.15) -> Training:
    """A loss on its way to a floor that is as high as the rate is large."""
    chance, loss = random.Random(1), 1.5  # noqa: S311 - noise of a picture
    rate = yield ()
    while True:
        loss += speed * (0.1 + floor * rate - loss)
        rate = yield (loss * (1 + noise * (2 * chance.random() - 1)),)


def accuracy() -> Training:
    """What `descent` is for a metric that rises."""
    loss = descent()
    next(loss)
    rate = yield ()
    while True:
        rate = yield (1 - loss.send(rate)[0] / 2,)


def slow(speed: float = 0.001, noise: float = 0.3) -> Training:
    """`descent` over thousands of steps, in the noise of single batches."""
    return descent(speed=speed, noise=noise)


def spiked() -> Training:
    """`descent`, with two spikes of a few steps each."""
    loss, step = slow(0.01, 0.1), 0
    next(loss)
    rate = yield ()
    while True:
        [value] = loss.send(rate)
        rate = yield (value * (3 if 700 <= step < 705 or 1100 <= step < 1103 else 1),)
        step += 1


def divergence() -> Training:
    """The loss of a range test: flat, falling, then exploding."""
    chance = random.Random(1)  # noqa: S311 - noise of a picture
    loss, rate = 2.3, (yield ())
    while True:
        lr = rate * BASE
        loss *= 1 - 0.08 * min(lr / 0.01, 1) if lr < 0.1 else 1 + 0.3 * min(lr, 1.0)
        rate = yield (loss * (1 + 0.02 * (2 * chance.random() - 1)),)


def too_slow() -> Training:
    """A loss that falls as a power of the sum of the rates, and rises from 40 times the base on."""
    chance, passed = random.Random(1), 50.0  # noqa: S311 - noise of a picture
    rate = yield ()
    while True:
        passed += rate if rate < 40 else -rate
        loss = 3 * max(passed, 10.0) ** -0.25
        rate = yield (loss * (1 + 0.004 * (2 * chance.random() - 1)),)


def divergent_policies() -> Training:
    """How far an update moves a policy: as the square of the rate, more and then less easily."""
    chance, step = random.Random(1), 0  # noqa: S311 - noise of a picture
    rate = yield ()
    while True:
        ease = 3e3 if 60 <= step < 130 else 3e2
        rate = yield (ease * 1e-2 * rate**2 * (1 + 0.3 * (2 * chance.random() - 1)),)
        step += 1


def agreement() -> Training:
    """Gradients that agree while the rate is below one that falls with time."""
    chance, step = random.Random(1), 0  # noqa: S311 - noise of a picture
    rate = yield ()
    while True:
        best = 3 * exp(-step / 80) + 0.2
        rate = yield (20 * (best - rate) + 10 * (2 * chance.random() - 1),)
        step += 1


def gradient_norms() -> Training:
    """Squared norms of gradients whose noise takes over as the training goes on."""
    step = 0
    yield ()
    while True:
        signal = exp(-step / 150)
        yield (signal + 0.5, signal + 0.5 / 8)
        step += 1


def jitter() -> Training:
    """A statistic with a mean above 0 until the weights stay around one place."""
    chance, distance = random.Random(1), 1.0  # noqa: S311 - noise of a picture
    yield ()
    while True:
        distance *= 1 - 0.001
        yield (distance + 0.5 * (2 * chance.random() - 1),)


SWEEP = {"schedule": {"kind": "range_test", "steps": 100}, "base_lr": 1.0}

SCENES: dict[str, Scene] = {
    "adalrs": Scene(too_slow, 2_400),
    "adascale": Scene(gradient_norms, 800),
    "dlib_slope": Scene(slow, 12_000),
    "greedy": Scene(descent, 120),
    "hypergradient": Scene(agreement, 300),
    "kl_adaptive": Scene(divergent_policies, spec={"base_lr": 1e-3}),
    "newbob": Scene(descent, 40),
    "optax.reduce_on_plateau": Scene(lambda: slow(0.002), 8_000),
    "range_test": Scene(divergence, spec=SWEEP),
    "slope_test": Scene(slow, 18_000),
    "spike_guard": Scene(spiked, 2_500),
    "stationarity": Scene(jitter, 18_000),
    "switch": Scene(descent, 1_200),
}
"""The trainings of kinds that another metric drives, or a longer one; `descent` shows the rest."""


if __name__ == "__main__":
    main()
