"""`python -m benchmarks.dashboard`: size, time and memory of the dashboard's pages.

A real Chromium loads the pages of a service with thousands of sessions, one of which has a million
points. Then it keeps the overview and the page of a session open while trainings report and an
operator orders, and prints each minute what the pages hold after their garbage was collected.
"""

import argparse
import asyncio
import itertools
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright
from websockets.sync.client import connect

from benchmarks import servers
from pacesetter import Client
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore

AT_ONCE = 500
"""How many sessions the writer gets in one batch."""

STEPS = 2_000
"""How many steps one report has while the database is filled."""

LONG = "long"
"""The session of many points."""

WATCHED = "watched-0"
"""The session whose page is kept open."""

TRAININGS = 3
"""How many trainings go on while pages are kept open."""

PACE = 0.1
"""Seconds that one of their steps takes: each reports twice a step."""

BETWEEN_ORDERS = 0.4
"""Seconds between two orders of the operator, in the session that is watched."""

FIRST_CURVE = {
    "overview": "[...document.querySelectorAll('img.spark')].some((each) => each.naturalWidth)",
    "session": "document.querySelector('.drawn svg path')",
    "session, by the script": "document.querySelector('.plot .uplot canvas')",
}
"""The elements that show that a page has a curve."""

STOPWATCH = """
window.shown = {};
const look = () => {
  for (const [what, holds] of Object.entries(looked)) if (!(what in shown) && holds()) shown[what] = performance.now();
  requestAnimationFrame(look);
};
look();
"""  # noqa: E501 - a script


@dataclass(frozen=True, slots=True)
class Size:
    """What the database holds.

    Attributes:
        sessions: How many sessions are in the list.
        points: How many steps one of them has, each with a measurement.
    """

    sessions: int
    points: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a page holds after its garbage was collected.

    Attributes:
        heap: Bytes of its scripts.
        nodes: Nodes of documents, those that only scripts know included.
        listeners: Listeners of events.
        process: Bytes that the processes of its browser which show pages have for themselves.
    """

    heap: int
    nodes: int
    listeners: int
    process: int

    def __str__(self) -> str:
        return (
            f"{self.heap / 1e6:.2f} MB of scripts, {self.nodes:,} nodes,"
            f" {self.listeners:,} listeners, {self.process / 2**20:.0f} MiB of processes"
        )


class Watch:
    """A page that is kept open in a separate browser, and what it holds.

    Playwright would make the browser keep the body of each answer. So this one gets only a few
    commands of Chromium's own protocol.
    """

    def __init__(self, name: str, program: str, address: str, folder: Path) -> None:
        """Start the browser, and open the page.

        Args:
            name: Of the page.
            program: The browser's.
            address: Of the page.
            folder: For the browser's own files; it must not exist yet.
        """
        self.name = name
        options = ["--headless=new", "--no-sandbox", "--no-first-run", "--window-size=1280,900"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen([program, *options], stdout=quiet, stderr=quiet)
        told = folder / "DevToolsActivePort"
        wait_until(lambda: told.exists() and len(told.read_text().splitlines()) > 1)
        port, whole = told.read_text().splitlines()
        self._whole = Protocol(f"ws://127.0.0.1:{port}{whole}")
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        found = next(each for each in pages if each["type"] == "page")
        self._page = Protocol(found["webSocketDebuggerUrl"])
        for each in ("Performance.enable", "Log.enable", "Runtime.enable"):
            self._page.ask(each)
        self._page.ask("Page.navigate", url=address)

    @property
    def complaints(self) -> list[str]:
        """The errors that the browser has logged."""
        return self._page.complaints

    def held(self) -> Held:
        """Collect the garbage, and return what is left."""
        for _ in range(2):  # what the first one ends, the second one takes away
            self._page.ask("HeapProfiler.collectGarbage")
        metrics = self._page.ask("Performance.getMetrics")["metrics"]
        found = {each["name"]: int(each["value"]) for each in metrics}
        processes = self._whole.ask("SystemInfo.getProcessInfo")["processInfo"]
        own = sum(_private(each["id"]) for each in processes if each["type"] == "renderer")
        return Held(found["JSHeapUsedSize"], found["Nodes"], found["JSEventListeners"], own)

    def shown_step(self) -> int:
        """Return the step on the page of a session; 0 if it shows none."""
        script = "document.querySelector('#facts dd')?.textContent.trim().split(/\\s/)[0]"
        text = str(self._page.ask("Runtime.evaluate", expression=script)["result"].get("value"))
        return int(text.replace(",", "")) if text[:1].isdigit() else 0

    def close(self) -> None:
        """End the browser."""
        self._page.close()
        self._whole.ask("Browser.close")
        self._process.wait(servers.PATIENCE)
        self._whole.close()


class Protocol:
    """Chromium's own protocol, for a page or for the whole browser.

    Attributes:
        complaints: The errors that the browser has logged.
    """

    def __init__(self, address: str) -> None:
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._ends = ExitStack()
        self._socket = self._ends.enter_context(connect(address, max_size=None, proxy=None))

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == number:
                result: dict[str, Any] = said["result"]
                return result
            self._hear(said.get("method", ""), said.get("params", {}))

    def close(self) -> None:
        """Close the connection."""
        self._ends.close()

    def _hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning"}:
            self.complaints.append(str(told["args"]))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds.

    Raises:
        RuntimeError: It does not.
    """
    deadline = time.monotonic() + servers.PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("the browser did not start")
        time.sleep(0.02)


def _private(number: int) -> int:
    """Return the private bytes of a process; 0 where the system does not say."""
    rollup = Path(f"/proc/{number}/smaps_rollup")
    rows = rollup.read_text().splitlines() if rollup.exists() else []
    return 1024 * sum(int(each.split()[1]) for each in rows if each.startswith("Private_"))


async def _fill(folder: Path, size: Size) -> None:
    """Write the sessions and the points through the writer, as trainings do."""
    store = SqliteStore(f"sqlite:///{folder / 'pacesetter.db'}")
    writer = Writer(store)
    writer.start()
    try:
        for start in range(0, size.sessions, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, size.sessions))
            specs = [_spec(f"old-{number:06}", 10_000) for number in numbers]
            await asyncio.gather(*(writer.submit(Create(each)) for each in specs))
            window = (Seal(0, 40, attempt=1, at=0, pace=0.1, trains=True),)
            await asyncio.gather(*(writer.submit(Change(each.name, window)) for each in specs))
        await writer.submit(Create(_spec(LONG, 2 * size.points)))
        for start in range(0, size.points, STEPS):
            steps = range(start, min(start + STEPS, size.points))
            seal = Seal(start, len(steps), attempt=1, at=start, pace=1e-4, trains=True)
            await writer.submit(Change(LONG, (seal,)))
            told = tuple(Reading(0, step, "loss", 1 / (1 + step)) for step in steps)
            await writer.submit(Change(LONG, (Report(told, 1),)))
    finally:
        writer.stop()
        store.close()


def _spec(name: str, steps: int) -> SessionSpec:
    law = {"kind": "cosine", "total_steps": steps}
    return SessionSpec.model_validate(
        {"name": name, "base_lr": 0.1, "schedule": law, "total_steps": steps}
    )


def weigh(browser: Browser, address: str) -> dict[str, int]:
    """Return the bytes that a first visit to a page loads over the wire, by type."""
    context = browser.new_context()
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    kinds: dict[str, str] = {}
    weights: dict[str, int] = {}

    def begun(event: dict[str, Any]) -> None:
        kinds[event["requestId"]] = event["type"]

    def ended(event: dict[str, Any]) -> None:
        kind = _sort_of(kinds[event["requestId"]])
        weights[kind] = weights.get(kind, 0) + int(event["encodedDataLength"])

    network.on("Network.responseReceived", begun)
    network.on("Network.loadingFinished", ended)
    page.goto(address, wait_until="load")
    page.wait_for_timeout(1_500)  # what the script asks for comes after that
    context.close()
    return weights


def _sort_of(kind: str) -> str:
    kinds = {"Document": "page", "Stylesheet": "files", "Script": "files", "Image": "pictures"}
    return kinds.get(kind, "numbers")


def time_to_curve(browser: Browser, address: str, rounds: int) -> dict[str, float]:
    """Return the seconds until a first visit sees a curve: the median of some visits."""
    looked = ", ".join(f"{what!r}: () => {each}" for what, each in FIRST_CURVE.items())
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(f"(() => {{ const looked = {{{looked}}}; {STOPWATCH} }})()")
        page.goto(address)
        page.wait_for_function("() => 'overview' in shown || 'session, by the script' in shown")
        for what, when in page.evaluate("() => shown").items():
            seen.setdefault(what, []).append(when / 1000)
        context.close()
    return {what: statistics.median(times) for what, times in seen.items()}


@contextmanager
def trainings(url: str) -> Iterator[list[int]]:
    """Train, and order now and then, until the block is left.

    Yields:
        The step that the watched training is at, and how many orders were given.
    """
    over, done = threading.Event(), [0, 0]
    with Client(url) as client, ExitStack() as ends:
        threads = [
            threading.Thread(target=_train, args=(client, number, over, done))
            for number in range(TRAININGS)
        ]
        for each in threads:
            each.start()
            ends.callback(each.join)
        ends.callback(over.set)
        while not done[0]:
            time.sleep(0.02)
        operator = threading.Thread(target=_operate, args=(client, over, done))
        operator.start()
        ends.callback(operator.join)
        ends.callback(over.set)
        yield done


def _train(client: Client, number: int, over: threading.Event, done: list[int]) -> None:
    law = {"kind": "cosine", "total_steps": 200_000}
    spec: dict[str, Any] = {"schedule": law, "base_lr": 0.1, "total_steps": 200_000}
    name = WATCHED if number == 0 else f"beside-{number}"
    with client.session(name, max_lookahead=20, steps_per_epoch=500, **spec) as session:
        for step in itertools.count():
            if over.wait(PACE):
                return
            session.lr(step)
            loss = 1 + 4 * math.exp(-step / 2000) + 0.05 * math.sin(step)
            session.report(step, loss=loss, accuracy=1 - loss / 6)
            if number == 0:
                done[0] = step


def _operate(client: Client, over: threading.Event, done: list[int]) -> None:
    for number in itertools.count():
        if over.wait(BETWEEN_ORDERS):
            return
        factor = 0.8 if number % 2 == 0 else 1.25
        client.scale(WATCHED, factor, reason=f"order {number} of a benchmark")
        done[1] = number + 1


def keep_open(program: str, url: str, minutes: float, every: float) -> None:
    """Keep pages open while trainings go on, and print what they hold every so many seconds.

    Each page has a browser of its own, which tells how much memory its processes take.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        trainings(url) as done,
        ExitStack() as ends,
    ):
        watches = [
            ends.enter_context(closing(Watch(name, program, f"{url}/{path}", Path(folder, name))))
            for name, path in (("overview", ""), ("session", f"sessions/{WATCHED}"))
        ]
        wait_until(lambda: watches[-1].shown_step() > 0)
        began = time.monotonic()
        for number in itertools.count(1):
            passed = time.monotonic() - began
            behind = done[0] - watches[-1].shown_step()
            told = "; ".join(f"{each.name} {each.held()}" for each in watches)
            _say(
                f"{passed / 60:5.1f} min, {done[0]:6,} steps, {done[1]:5,} orders; {told};"
                f" {behind} steps behind"
            )
            if passed >= 60 * minutes:
                break
            next_look = began + min(number * every, 60 * minutes)
            time.sleep(max(next_look - time.monotonic(), 0))
        _say(f"complaints of the browsers: {[each.complaints for each in watches]}")


def _say(text: str) -> None:
    print(text, flush=True)


def run(size: Size, rounds: int, minutes: float, every: float) -> None:
    """Measure all of it, and print it."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("There is no browser: install Debian's package chromium.")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_fill(Path(folder), size))
        with servers.service(Path(folder)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            many, long = f"{server.url}/", f"{server.url}/sessions/{LONG}"
            _say(f"{size.sessions:,} sessions in the list, one of {size.points:,} points")
            for name, address in (("overview", many), ("session", long)):
                weights = weigh(browser, address)
                told = ", ".join(f"{kind} {each / 1000:.1f}" for kind, each in weights.items())
                _say(f"{name} weighs {_first_load(weights) / 1000:.1f} kB: {told}")
            for address in (many, long):
                before = server.cpu_seconds()
                times = time_to_curve(browser, address, rounds)
                spent = (server.cpu_seconds() - before) / rounds
                for what, seconds in times.items():
                    _say(
                        f"first curve, {what}: {seconds:.2f} s, median of {rounds} visits, each of"
                        f" which takes {1000 * spent:.0f} ms of the service's processor time"
                    )
            browser.close()
            keep_open(program, server.url, minutes, every)


def _first_load(weights: dict[str, int]) -> int:
    return weights.get("page", 0) + weights.get("files", 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurements of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long pages are kept open")
    parser.add_argument("--every", type=float, default=60, help="seconds between two looks")
    parser.add_argument("--sessions", type=int, default=10_000, help="how many are in the list")
    parser.add_argument("--points", type=int, default=1_000_000, help="steps of one of them")
    parser.add_argument("--rounds", type=int, default=7, help="visits whose median is told")
    given = parser.parse_args(arguments)
    run(Size(given.sessions, given.points), given.rounds, given.minutes, given.every)


if __name__ == "__main__":
    main()
