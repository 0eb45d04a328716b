"""Every page is accessible: dark or light, on a phone or a wall, by keyboard alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from pacesetter_service.dashboard.app import _routes
from serving import PATIENCE, RunningService, open_http
from training import Training

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"

PLAN: dict[str, Any] = {
    "base_lr": 0.1,
    "schedule": {"kind": "cosine", "total_steps": 400},
    "total_steps": 400,
    "labels": {"team": "vision"},
}

ORDERS = ("scale", "set", "hold", "release", "cooldown", "retime", "rewarm", "replace", "limit",
          "revert", "switch")  # fmt: skip

PAGES = {
    "/": ["", "?q=none-such", "?label=team:vision&sort=name"],
    "/timeline": ["timeline", "timeline?kind=ordered"],
    "/problems": ["problems"],
    "/create": ["create?q=cosine"],
    "/create/kinds/{kind}": ["create/kinds/warmup_cosine", "create/kinds/table"],
    "/create/json": ["create/json"],
    "/create/template": ["create/template", "create/template?of=ours"],
    "/create/advise": ["create/advise", "create/advise?architecture=cnn&total_steps=100"],
    "/compare": ["compare", "compare?name=lived+other", "compare?name=lived+other&by=part"],
    "/admin": ["admin"],
    "/templates": ["templates"],
    "/templates/{name}": ["templates/ours?before=1&after=2"],
    "/sessions/{name}": [
        "sessions/lived",
        "sessions/lived?scale=log&step=3",
        "sessions/lived?attempt=1",
        "sessions/over?ordered=1&at=90",
        "sessions/lived?axis=time",
    ],
    "/sessions/{name}/plan": ["sessions/lived/plan"],
    "/sessions/{name}/timeline": ["sessions/lived/timeline"],
    "/sessions/{name}/ranks": ["sessions/lived/ranks"],
    "/sessions/{name}/range-test": ["sessions/range/range-test"],
    "/sessions/{name}/manage": ["sessions/lived/manage", "sessions/over/manage"],
    "/sessions/{name}/control/{kind}": [f"sessions/lived/control/{kind}" for kind in ORDERS],
}
"""Every page, by its address in the table of routes."""

NO_PAGES = {"/static/{digest}/{name:path}", "/login", "/create/pictures/{kind}", "/timeline/feed",
            "/sessions/{name}/range-test.svg", "/sessions/{name}/chart.json",
            "/sessions/{name}/explain", "/sessions/{name}/feed", "/sessions/{name}/spec.json",
            "/sessions/{name}/record.csv", "/sessions/{name}/spark.svg",
            "/sessions/{name}/lr.svg", "/sessions/{name}/spec.yaml", "/compare/chart.json",
            "/admin/backups/{file}",
            "/sessions/{name}/plan/candidates/{number:number}"}  # fmt: skip
"""These are files that scripts and browsers load, the login, which is checked on the way in, and an
order of a plan, which test_plan.py makes and checks.
"""


def sync(http: Any, name: str, step: int, count: int, attempt: int = 1, **more: object) -> None:
    """Sync as a trainer at a step."""
    body = {"want": {"start": step, "count": count}, "progress": {"step": step}, "attempt": attempt}
    http.post(f"/v1/sessions/{name}/sync", json={**body, **more}).raise_for_status()


def live(http: Any) -> None:
    """Create sessions with all that pages show: orders, attempts, alarms, forks, ends."""

    def tell(path: str, **body: object) -> None:
        answer = http.post(f"/v1/{path}", json=body)
        assert answer.is_success, answer.text

    stage = {"when": {"kind": "by_hand"}, "schedule": {"kind": "constant"}}
    rules = [{"kind": "switch", "metric": "loss", "stages": [stage]}]
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.2}}
    spec = {**PLAN, "base_lr": None, "groups": groups, "steps_per_epoch": 20}
    tell("sessions", name="lived", ranks=3, max_lookahead=64, controllers=rules, **spec)
    tell("sessions", name="other", **PLAN)
    tell("sessions", name="over", **PLAN)
    sync(http, "lived", 0, 40)
    tell("sessions/lived/attempts", step=20, key="again")
    losses = [
        {"step": step, "metrics": {"loss": 3 - step / 9, "top-1": step}} for step in range(20)
    ]
    sync(http, "lived", 20, 20, 2)
    sync(http, "lived", 30, 20, 2, rank=1, reports=losses)
    sync(http, "lived", 31, 8, 2, applied={"step": 25, "values": {"head.lr": 0.7}})
    tell("sessions/lived/actions", kind="scale", factor=0.5, reason="too hot")
    tell("sessions/lived/actions", kind="cooldown", steps=30, at=300, reason="planned")
    sync(http, "over", 0, 60)
    tell("sessions/over/finish", outcome="failed", reason="out of memory")
    test = {"kind": "range_test", "start_lr": 1e-6, "end_lr": 1.0, "steps": 60}
    tell("sessions", name="range", base_lr=1.0, schedule=test, total_steps=60)
    sync(http, "range", 0, 60)
    curve = [{"step": step, "metrics": {"loss": abs(step - 40) / 9 + 1}} for step in range(60)]
    sync(http, "range", 59, 1, reports=curve)
    for base in (0.1, 0.2):
        parameters = {"steps": {"description": "how long", "example": 50}}
        law = {"kind": "cosine", "total_steps": {"$": "steps"}}
        ours = {"base_lr": base, "schedule": law}
        tell("templates", name="ours", description="ours", parameters=parameters, spec=ours)
    tell("tokens", name="the viewer", role="viewer", scope=["team-a-*"])


@pytest.fixture(name="url", scope="module")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service with tokens, and with all that pages show."""
    expect.set_options(timeout=1000 * PATIENCE)
    database = tmp_path_factory.mktemp("everyone") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        http.headers["authorization"] = f"Bearer {ADMIN}"
        live(http)
        yield service.url


@pytest.fixture(name="visitor")
def _visitor(url: str, page: Page) -> Page:
    """Return a page of an admin."""
    page.goto(f"{url}/login")
    page.get_by_label("Your token").fill(ADMIN)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/")
    return page


def test_every_page_is_looked_at() -> None:
    """A page that is added to the table of routes must be added to these tests."""
    routes = _routes(None, None, None)  # type: ignore[arg-type] - it is only asked for addresses
    shown = {route.path for route, _ in routes if "GET" in (route.methods or ())}
    assert shown - NO_PAGES == set(PAGES)


EVERY = [path for paths in PAGES.values() for path in paths]


def show(page: Page, url: str, path: str) -> None:
    """Show a page, and wait until its script has finished drawing."""
    answer = page.goto(f"{url}/{path}")
    assert answer is not None
    assert answer.ok, path
    if page.locator("[data-plots]").count():
        expect(page.locator(".plot .uplot").first).to_be_visible()


def grave(page: Page, *tags: str) -> list[tuple[str, list[object]]]:
    """Return what axe finds serious or worse."""
    rules = (
        {"type": "tag", "values": tags} if tags else {"type": "rule", "values": ["color-contrast"]}
    )
    found = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", rules)
    assert found["passes"]
    return [
        (each["id"], [node["target"] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def test_pages_are_for_phones_and_for_walls_dark_and_light(url: str, visitor: Page) -> None:
    """Axe finds nothing serious; nothing is wider than a phone, and on a wall lines stay short."""
    for path in EVERY:
        visitor.set_viewport_size({"width": 360, "height": 740})
        visitor.emulate_media(color_scheme="dark")
        show(visitor, url, path)
        assert visitor.evaluate("() => document.documentElement.scrollWidth") <= 360, path
        visitor.evaluate(AXE)
        found = grave(visitor, "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
        assert not found, f"{path}, dark: {found}"
        visitor.set_viewport_size({"width": 3840, "height": 2160})
        visitor.emulate_media(color_scheme="light")
        assert not (found := grave(visitor)), f"{path}, light: {found}"
        wide = visitor.evaluate(WIDE)
        assert wide["small"] == [], f"{path}: {wide}"
        assert wide["long"] == [], f"{path}: {wide}"
        assert abs(wide["left"] - wide["right"]) <= 2, f"{path} is not in the middle: {wide}"


WIDE = """() => {
  const main = document.querySelector("main").getBoundingClientRect();
  const small = [], long = [];
  for (const each of document.querySelectorAll("main p, main li, main dd, main td:not(.mono), main small, main label")) {
    const own = [...each.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own.length || !each.checkVisibility()) continue;
    const size = parseFloat(getComputedStyle(each).fontSize);
    if (size < 14) small.push([each.textContent.slice(0, 40), size]);
    const range = document.createRange();
    for (const node of own) {
      range.selectNodeContents(node);
      for (const line of range.getClientRects()) {
        if (line.width > 130 * size * 0.5) long.push([each.textContent.slice(0, 60), Math.round(line.width / size * 2)]);
      }
    }
  }
  return { small, long, left: main.left, right: document.documentElement.clientWidth - main.right };
}"""  # noqa: E501 - a script


STOPS = """() => {
  const focusable = "a[href], button, input:not([type=hidden]), select, textarea, summary,"
    + "[tabindex='0']";
  window.stops = [...document.querySelectorAll(focusable)].filter((each) =>
    each.checkVisibility() && !each.disabled && (each.type !== "radio" || each.checked));
  return stops.length;
}"""

STOP = """() => {
  const here = document.activeElement, look = getComputedStyle(here);
  const box = here.getBoundingClientRect();
  return {
    place: stops.indexOf(here),
    what: here.outerHTML.slice(0, 120),
    seen: look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2
      && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


def test_the_tab_key_leads_to_everything_in_its_order(url: str, visitor: Page) -> None:
    """Each link, field and button is reached, one after the other, with a visible focus."""
    for path in EVERY:
        show(visitor, url, path)
        visitor.evaluate(
            "() => { for (const each of document.querySelectorAll('[data-every]')) each.remove(); }"
        )
        many, places = visitor.evaluate(STOPS), []
        for _ in range(many):
            visitor.keyboard.press("Tab")
            stop = visitor.evaluate(STOP)
            assert stop["seen"], f"{path}: {stop}"
            places.append(stop["place"])
        assert places == list(range(many)), path


@dataclass(frozen=True)
class Keyboard:
    """A visitor who uses only a keyboard."""

    page: Page

    def go_to(self, what: str) -> None:
        """Press Tab until the focus is on the element of that name."""
        for _ in range(150):
            self.page.keyboard.press("Tab")
            name = self.page.evaluate(
                "() => { const e = document.activeElement, label = e.labels?.[0];"
                " return e.getAttribute('aria-label') ?? (label ?? e).textContent; }"
            )
            if name.strip() == what:
                return
        raise AssertionError(f"Tab does not lead to {what}")

    def press(self, what: str) -> None:
        """Go to a link or a button, and press it."""
        self.go_to(what)
        self.page.keyboard.press("Enter")

    def write(self, what: str, text: str) -> None:
        """Go to a field, and write into it."""
        self.go_to(what)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)


def test_a_training_is_steered_by_keyboard_alone(
    server_url: str, page: Page, unique_name: str
) -> None:
    """From the overview to the session, to the form, the order is given, seen and cancelled."""
    keyboard = Keyboard(page)
    with Training(server_url, unique_name) as training:
        page.goto(f"{server_url}/?q={unique_name}")
        keyboard.press(unique_name)
        page.wait_for_url(f"**/sessions/{unique_name}")
        keyboard.press("Halve…")
        page.wait_for_url("**/control/scale")
        keyboard.write("Factor", "0.25")
        keyboard.write("Why (for the record)", "by keyboard")
        keyboard.press("Halve or multiply as shown")
        page.wait_for_url("**ordered=1**")
        said = page.get_by_role("status").filter(has_text="was taken").inner_text()
        step = int(re.findall(r"from step ([\d,]+)", said)[0].replace(",", ""))
        used = training.reach(step)
        assert used[step] == pytest.approx(used[step - 1] / 4, rel=1e-3)
        keyboard.press("Hold…")
        page.wait_for_url("**/control/hold")
        keyboard.write("From which step", "9000")
        keyboard.write("Why (for the record)", "later")
        keyboard.press("Hold as shown")
        page.wait_for_url("**ordered=2**")
        keyboard.press("Cancel order 2")
        page.wait_for_url("**cancelled=2")
        expect(page.locator("#orders")).to_contain_text("None waits")


def test_the_login_is_for_everyone(url: str, context: BrowserContext) -> None:
    """The field has the focus, Enter sends it; axe finds nothing serious, dark or light."""
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{url}/sessions/lived")
    page.evaluate(AXE)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        assert not grave(page, "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.keyboard.type(ADMIN)
    page.keyboard.press("Enter")
    page.wait_for_url("**/sessions/lived")
