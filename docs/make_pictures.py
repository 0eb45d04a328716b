"""Draw the pictures of the architecture: `make docs`.

The arrows between the parts are the imports that the code has. Each stop on a step's way names a
function that the code has: the drawing fails when one of them is gone.
"""

import ast
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
IMAGES = HERE / "img"
SERVICE = HERE.parent / "service/pacesetter_service"
CLIENT = HERE.parent / "client/pacesetter"

INK, PALE, PAPER = "#1f2328", "#57606a", "#ffffff"
OUTSIDE, INSIDE, PURE, WRITER, DISK = "#fff1e0", "#e3eefc", "#e2f4e6", "#f0e8fb", "#eceff2"
"""The colours of a training's process, the service, its pure parts, its writer and the disk."""

STYLE = (
    "text{font-family:-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px;"
    f"fill:{INK}}}.name{{font-weight:600;font-size:15px}}.small{{font-size:12px;fill:{PALE}}}"
    f".line{{fill:none;stroke:{INK};stroke-width:1.6}}.skip{{fill:none;stroke:#9aa4af;"
    f"stroke-width:1.3}}.call{{stroke-dasharray:6 4}}.box{{stroke:{INK};stroke-width:1.1}}"
)

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle with a name and some lines below it."""

    x: float
    y: float
    width: float
    height: float
    name: str
    lines: tuple[str, ...]
    colour: str

    @property
    def middle(self) -> float:
        """The middle between left and right."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width


def main() -> None:
    """Write both pictures."""
    (IMAGES / "parts.svg").write_text(parts())
    (IMAGES / "step.svg").write_text(step())


# -- the parts and their imports ---------------------------------------------------------------

PARTS = {
    "api": Box(
        250,
        152,
        380,
        54,
        "api, dashboard",
        ("parse HTTP, call use cases, say the answer",),
        INSIDE,
    ),
    "runtime": Box(250, 242, 380, 54, "runtime", ("the use cases, and the one writer",), INSIDE),
    "store": Box(250, 332, 380, 54, "store", ("what is committed, and read again",), INSIDE),
    "insight": Box(250, 422, 180, 54, "insight", ("explains what happened",), PURE),
    "catalogue": Box(450, 422, 180, 54, "catalogue", ("kinds of other libraries",), PURE),
    "core": Box(250, 512, 380, 54, "core", ("decides: values in, values out",), PURE),
}
"""Where each part stands, and what it does."""

TOGETHER = {"dashboard": "api"}
"""Parts of one rank that share a place: they import the same, and each other where it says so."""

ROWS = [("api",), ("runtime",), ("store",), ("insight", "catalogue"), ("core",)]


def parts() -> str:
    """Draw the parts, with an arrow from each part to those that it imports."""
    client = Box(
        250, 24, 380, 54, "client", ("in the training: walks through windows of values",), OUTSIDE
    )
    database = Box(718, 323, 112, 72, "database", ("SQLite or", "PostgreSQL"), DISK)
    store = PARTS["store"]
    drawn = [
        '<rect x="96" y="112" width="588" height="504" rx="10" fill="#f6f8fa" stroke="#d0d7de"/>',
        text(108, 134, "the service: one process", "small"),
        text(250, 586, "green: pure; knows no clock, no file, no network", "small"),
        text(250, 604, "an arrow is an import; a dashed one is a call", "small"),
        *imports_drawn(imported()),
        arrow([(440, 78), (440, 152)], "line call"),
        text(450, 101, "HTTP, about once a window", "small"),
        arrow([(store.right, 359), (718, 359)], "line call"),
        *(box for each in (client, database, *PARTS.values()) for box in drawn_box(each)),
    ]
    return svg(860, 636, "The parts of Pacesetter, and which of them imports which", drawn)


def imported() -> set[tuple[str, str]]:
    """Return which part imports which, by the code.

    Raises:
        ValueError: A part of the service has no place in the picture.
    """
    found = set()
    folders = {path.name for path in SERVICE.iterdir() if any(path.glob("*.py"))}
    placed = {TOGETHER.get(folder, folder) for folder in folders}
    if placed != set(PARTS):
        raise ValueError(f"give these parts a place in the picture: {placed ^ set(PARTS)}")
    for folder in sorted(folders):
        part = TOGETHER.get(folder, folder)
        for path in (SERVICE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    package, _, inner = node.module.partition(".")
                    other = inner.partition(".")[0]
                    other = TOGETHER.get(other, other)
                    if package == SERVICE.name and other in PARTS and other != part:
                        found.add((part, other))
    return found


def imports_drawn(edges: set[tuple[str, str]]) -> Iterator[str]:
    """Draw neighbours' imports as straight arrows, and those that skip a row in lanes beside."""
    row = {part: index for index, parts in enumerate(ROWS) for part in parts}
    lanes = {"left": 228.0, "right": 650.0}
    for importer, part in sorted(edges, key=lambda edge: (row[edge[1]] - row[edge[0]], edge)):
        above, below = PARTS[importer], PARTS[part]
        if row[part] - row[importer] == 1:
            narrow = min(above, below, key=lambda box: box.width)
            yield arrow([(narrow.middle, above.bottom), (narrow.middle, below.y)], "line")
        elif (importer, part) == ("store", "core"):
            yield arrow([(440, above.bottom), (440, below.y)], "skip")
        elif part == "catalogue":
            x, lanes["right"] = lanes["right"], lanes["right"] + 14
            yield lane(above.right, above.y + 27, x, below.y + 18, below.right)
        else:
            x, lanes["left"] = lanes["left"], lanes["left"] - 20
            yield lane(above.x, above.y + 18, x, below.y + 27, below.x)


def lane(start: float, top: float, x: float, bottom: float, end: float) -> str:
    """Draw an arrow that leaves a box sideways and comes back to another one below."""
    return arrow([(start, top), (x, top), (x, bottom), (end, bottom)], "skip")


# -- a step's way ------------------------------------------------------------------------------


class Stop(NamedTuple):
    """A place on a step's way: a function, and what it does there."""

    column: int
    row: int
    path: Path
    function: str
    lines: tuple[str, str]


STOPS = [
    Stop(
        0,
        0,
        CLIENT / "torch.py",
        "RemoteLR.step",
        ("the update of a step is done:", "go on to the next step"),
    ),
    Stop(
        1,
        0,
        CLIENT / "_core.py",
        "SessionCore.window",
        ("the values that are here,", "in the training's memory"),
    ),
    Stop(
        2,
        0,
        CLIENT / "_torch/writing.py",
        "Writing.write",
        ("the rate of the step", "into the optimizer"),
    ),
    Stop(
        0,
        1,
        CLIENT / "_prefetcher.py",
        "Prefetcher.order",
        ("a part of the window is left:", "order the next one"),
    ),
    Stop(
        1,
        1,
        CLIENT / "_sync_channel.py",
        "SyncChannel.exchange",
        ("reports out, window in,", "retried until it works"),
    ),
    Stop(
        2,
        1,
        CLIENT / "_window.py",
        "decode",
        ("checked against the contract,", "then kept as the next window"),
    ),
    Stop(
        0,
        2,
        SERVICE / "api/sync.py",
        "SyncEndpoint.__call__",
        ("parse the call,", "call one use case"),
    ),
    Stop(
        1,
        2,
        SERVICE / "runtime/trainer.py",
        "sync",
        ("record the reports,", "find or seal the window"),
    ),
    Stop(
        2,
        2,
        SERVICE / "api/sync.py",
        "_encoded",
        ("the window in float64 bits,", "with what else is known"),
    ),
    Stop(
        0,
        3,
        SERVICE / "runtime/batch.py",
        "Batch.do",
        ("all jobs that are queued,", "each on what the one before left"),
    ),
    Stop(
        1,
        3,
        SERVICE / "core/decide.py",
        "decide",
        ("a draft: the events, and the", "session after them; or a refusal"),
    ),
    Stop(
        2,
        3,
        SERVICE / "runtime/writer.py",
        "Writer._publish",
        ("after the commit only: the new", "state in memory, the answers"),
    ),
    Stop(
        1,
        4,
        SERVICE / "store/writing.py",
        "SqlTransaction.refuse_stale",
        ("versions are those that were", "read, or decide again"),
    ),
    Stop(
        2,
        4,
        SERVICE / "store/writing.py",
        "SqlTransaction.append",
        ("strict inserts; then one flush", "of the disk for the batch"),
    ),
]

BANDS = [
    ("the training's thread: at every step", OUTSIDE),
    ("the client's own thread: about once a window", OUTSIDE),
    ("the service's event loop", INSIDE),
    ("the writer's thread", WRITER),
    ("the database", DISK),
]

WIDTH, BAND, STEP_HEIGHT, LEFT, BETWEEN = 238, 128, 76, 24, 49


def step() -> str:
    """Draw the way of a step's value, from the optimizer to the disk and back."""
    boxes = [placed(stop) for stop in STOPS]
    (ask, window, write, order, exchange, decode) = boxes[:6]
    (endpoint, use_case, answer, batch, decide, publish, compare, append) = boxes[6:]
    drawn = [
        band
        for index, (title, colour) in enumerate(BANDS)
        for band in drawn_band(index, title, colour)
    ]
    across = [(ask, window), (window, write), (order, exchange), (endpoint, use_case)]
    across += [(use_case, answer), (batch, decide), (compare, append)]
    drawn += [arrow([(a.right, a.y + 38), (b.x, b.y + 38)], "line") for a, b in across]
    drawn += [
        elbow(window, order),
        elbow(exchange, endpoint, "line call"),
        label(exchange, "POST …/sync"),
        elbow(use_case, batch),
        label(use_case, "reports, and what is not sealed yet"),
        arrow([(decide.middle, decide.bottom), (decide.middle, compare.y)], "line"),
        *(
            arrow([(a.middle, a.y), (a.middle, b.bottom)], way)
            for a, b, way in (
                (append, publish, "line"),
                (publish, answer, "line"),
                (answer, decode, "line call"),
            )
        ),
        arrow(
            [
                (decode.middle, decode.y),
                (decode.middle, window.bottom + 17),
                (window.middle + 60, window.bottom + 17),
                (window.middle + 60, window.bottom),
            ],
            "line",
        ),
        *(part for box in boxes for part in drawn_box(box)),
    ]
    return svg(860, BAND * len(BANDS) + 8, "The way of a step's value, and back", drawn)


def placed(stop: Stop) -> Box:
    """Return the box of a stop.

    Raises:
        ValueError: The code has no such function.
    """
    if stop.function not in functions(stop.path):
        raise ValueError(f"{stop.path.name} has no {stop.function} any more: name what does it now")
    x = LEFT + stop.column * (WIDTH + BETWEEN)
    y = 4 + stop.row * BAND + 30
    if "." in stop.function:
        name = stop.function.removeprefix("Sqlite").removesuffix(".__call__")
    else:
        module = "core" if stop.path.stem == stop.function else stop.path.stem
        name = f"{module}.{stop.function}"
    return Box(x, y, WIDTH, STEP_HEIGHT, name, stop.lines, PAPER)


def functions(path: Path) -> set[str]:
    """Return the functions and methods of a module, methods behind the name of their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


def drawn_band(index: int, title: str, colour: str) -> Iterator[str]:
    """Draw what a row of stops stands on."""
    y = 4 + index * BAND
    yield f'<rect x="8" y="{y}" width="844" height="{BAND - 6}" rx="8" fill="{colour}"/>'
    yield text(LEFT + 28, y + 20, title, "small")


def elbow(above: Box, below: Box, way: str = "line") -> str:
    """Draw an arrow from under a box to the left end of one that stands elsewhere below it."""
    x, end, turn = above.middle - 60, below.x + 16, above.bottom + 17
    return arrow([(x, above.bottom), (x, turn), (end, turn), (end, below.y)], way)


def label(above: Box, words: str) -> str:
    """Write beside where an elbow leaves a box."""
    return text(above.middle - 52, above.bottom + 14, words, "small")


# -- SVG ---------------------------------------------------------------------------------------


def svg(width: int, height: int, title: str, drawn: list[str]) -> str:
    """Return a picture on paper of its own, so that it is read in the light and in the dark."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>'
        + "\n".join(drawn)
        + "</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Write a line."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def drawn_box(box: Box) -> Iterator[str]:
    """Draw a box with its name above its lines."""
    yield (
        f'<rect class="box" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}"'
        f' height="{box.height:g}" rx="6" fill="{box.colour}"/>'
    )
    y = box.y + 23
    yield text(box.middle, y, box.name, "name", "middle")
    for index, line in enumerate(box.lines):
        yield text(box.middle, y + 20 + 17 * index, line, "", "middle")


def arrow(points: list[Point], kind: str) -> str:
    """Draw straight lines from point to point, with a head at the last one."""
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    *_, ((x0, y0), (x1, y1)) = pairwise(points)
    length = max(abs(x1 - x0), abs(y1 - y0))
    across, down = (x1 - x0) / length, (y1 - y0) / length
    back = (x1 - 9 * across, y1 - 9 * down)
    left = (back[0] + 4.5 * down, back[1] + 4.5 * across)
    right = (back[0] - 4.5 * down, back[1] - 4.5 * across)
    corners = " ".join(f"{x:g},{y:g}" for x, y in ((x1, y1), left, right))
    colour = "#9aa4af" if kind == "skip" else INK
    return f'<path class="{kind}" d="{path}"/><polygon points="{corners}" fill="{colour}"/>'


if __name__ == "__main__":
    main()
