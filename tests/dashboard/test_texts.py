"""What trainers and operators write is plain text on every page, and never runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import httpx
import pytest
from playwright.sync_api import Page, expect

from serving import PATIENCE, RunningService, open_http
from watched import Watched

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"

_numbers = count()


def attack() -> str:
    """Return a text that ends attributes and tags, loads a picture, and runs a script."""
    return f"\"'><img src=x{next(_numbers)} onerror=alert(1)><script>alert(1)</script>{{{{7*7}}}}"


TOKEN, LABEL, KEY, WAITING, ACTED, LATER, END, BACK = (attack() for _ in range(8))
ABOUT, MEANING, DEFAULT, OLD, NOTE = (attack() for _ in range(5))

FIELDS = {
    "the name of a token": (TOKEN, {"", "sessions/a", "timeline", "admin", "problems", "create"}),
    "a label": (LABEL, {"", "sessions/a", "sessions/a/manage", "compare?name=a+b"}),
    "the key of an attempt": (KEY, {"sessions/a"}),
    "the reason of an order that waits": (WAITING, {"sessions/b", "sessions/b/timeline"}),
    "the reason of an order": (
        ACTED,
        {"sessions/a", "sessions/a/timeline", "timeline", "sessions/a?step=5"},
    ),
    "the reason of an order for far away": (LATER, {"problems"}),
    "the reason of an end": (END, {"sessions/a", "sessions/a/timeline", "problems"}),
    "the reason of a take-back": (BACK, {"sessions/b/timeline"}),
    "what a template is for": (ABOUT, {"templates", "templates/t"}),
    "what a parameter means": (MEANING, {"templates/t"}),
    "the default of a parameter": (DEFAULT, {"templates/t"}),
    "why a template is old": (OLD, {"templates/t"}),
    "a text in the spec of a template": (NOTE, {"templates/t"}),
}
"""Every field that takes any text: what is written into it, and pages that show it."""

REFUSED = {
    "the name of a session": ("POST", "sessions", {"name": attack(), "base_lr": 0.1}),
    "a group": ("POST", "sessions", {"name": "c", "groups": {attack(): {"base_lr": 0.1}}}),
    "the name of a label": (
        "POST",
        "sessions",
        {"name": "c", "base_lr": 1, "labels": {attack(): ""}},
    ),
    "a metric that a rule watches": (
        "POST",
        "sessions",
        {"name": "c", "base_lr": 1, "controllers": [{"kind": "plateau", "metric": attack()}]},
    ),
    "a metric": (
        "POST",
        "sessions/b/sync",
        {"reports": [{"step": 0, "metrics": {attack(): 1.0}}]},
    ),
    "a series that was applied": (
        "POST",
        "sessions/b/sync",
        {"attempt": 1, "applied": {"step": 0, "values": {attack(): 1.0}}},
    ),
    "a group of an order": (
        "POST",
        "sessions/b/actions",
        {"kind": "scale", "factor": 0.5, "groups": [attack()]},
    ),
    "the name of a template": ("POST", "templates", {"name": attack(), "spec": {"base_lr": 0.1}}),
    "the name of a parameter": (
        "POST",
        "templates",
        {"name": "u", "parameters": {attack(): {}}, "spec": {"base_lr": {"$": attack()}}},
    ),
    "a scope": ("POST", "tokens", {"name": "x", "role": "viewer", "scope": [attack()]}),
}
"""Every other field: names, which are limited to letters and a few signs."""

ASKED = attack()

PAGES = [
    *sorted(set().union(*(pages for _, pages in FIELDS.values()))),
    "sessions/b/control/scale",
    "sessions/b/control/replace",
    "sessions/a/ranks",
    "sessions/r/range-test",
    "create/json",
    "create/kinds/cosine",
    "create/advise?architecture=cnn&total_steps=100",
    "templates/t?before=1&after=2",
]

REFLECTING = [
    "?q={}",
    "?label={}",
    "?state={}",
    "?key={}&name={}",
    "timeline?session={}",
    "timeline?actor={}",
    "timeline?label={}",
    "timeline?kind={}",
    "sessions/a/timeline?actor={}&kind={}",
    "sessions/a?series={}&step={}&ordered={}&scale={}",
    "sessions/b/control/scale?factor={}&at={}",
    "sessions/b/control/replace?schedule={}",
    "sessions/r/range-test?metric={}",
    "compare?name={}",
    "create?q={}",
    "create/json?spec={}",
    "create/advise?architecture={}&total_steps={}",
    "templates/t?before={}&after={}",
]
"""Links that an attacker could have a visitor follow: their parameters are text, too."""


@dataclass(frozen=True)
class Written:
    """A service with an attack in every field, and the secret of a token."""

    url: str
    secret: str


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    """Return a service with two sessions, a range test and a template."""
    expect.set_options(timeout=1000 * PATIENCE)
    database = tmp_path_factory.mktemp("texts") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        http.headers["authorization"] = f"Bearer {ADMIN}"
        made = told(http, "tokens", {"name": TOKEN, "role": "admin"})
        http.headers["authorization"] = f"Bearer {made['token']}"
        _write(http)
        yield Written(service.url, str(made["token"]))


def _write(http: httpx.Client) -> None:
    plan = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 100}}
    for name, labels in (("a", {"note": LABEL}), ("b", {})):
        told(http, "sessions", {"name": name, "labels": labels, "total_steps": 100, **plan})
    told(http, "sessions/a/attempts", {"step": 0, "key": KEY})
    reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(4)]
    trained = {"attempt": 2, "progress": {"step": 0}}
    told(http, "sessions/a/sync", {"want": {"start": 0, "count": 4}, **trained})
    told(http, "sessions/a/actions", {"kind": "scale", "factor": 0.5, "reason": ACTED})
    told(http, "sessions/a/sync", {"want": {"start": 4, "count": 4}, "reports": reports, **trained})
    told(http, "sessions/a/finish", {"outcome": "failed", "reason": END})
    told(http, "sessions/b/sync", {"want": {"start": 0, "count": 4}})
    told(http, "sessions/b/take-back", {"reason": BACK})
    told(http, "sessions/b/sync", {"want": {"start": 0, "count": 4}, "attempt": 2,
                                   "progress": {"step": 0, "seconds_per_step": 1.0}})  # fmt: skip
    for at, reason in ((50, WAITING), (90_000, LATER)):
        told(
            http, "sessions/b/actions", {"kind": "scale", "factor": 0.5, "at": at, "reason": reason}
        )
    test = {"kind": "range_test", "start_lr": 1e-5, "end_lr": 1.0, "steps": 20}
    told(http, "sessions", {"name": "r", "base_lr": 1.0, "schedule": test, "total_steps": 20})
    told(http, "sessions/r/sync", {"want": {"start": 0, "count": 20}, "attempt": 1})
    reports = [{"step": step, "metrics": {"loss": abs(step - 12)}} for step in range(20)]
    told(http, "sessions/r/sync", {"reports": reports, "attempt": 1})
    for base in (0.1, 0.2):
        meaning = {"description": MEANING, "default": DEFAULT}
        spec = {"base_lr": base, "labels": {"note": NOTE, "more": {"$": "more"}}}
        body = {"name": "t", "description": ABOUT, "parameters": {"more": meaning}, "spec": spec}
        told(http, "templates", body)
    told(http, "templates/t/2/deprecate", {"reason": OLD})


def told(http: httpx.Client, path: str, body: object) -> dict[str, object]:
    """Send something that the service must accept."""
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.is_success, f"{path}: {answer.text}"
    found: dict[str, object] = answer.json()
    return found


@pytest.fixture(name="visitor")
def _visitor(written: Written, page: Page) -> Page:
    """Return a page that is logged in by the token, and reports any script that runs."""
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(f"{written.url}/login")
    page.get_by_label("Your token").fill(written.secret)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{written.url}/")
    return page


TEXTS = """() => {
  const texts = [document.body.innerText, ...[...document.querySelectorAll("details, pre, td")].map((e) => e.textContent)];
  for (const each of document.querySelectorAll("*")) {
    if ("value" in each) texts.push(String(each.value));
    for (const { value } of each.attributes) texts.push(value);
  }
  return texts;
}"""  # noqa: E501 - a script


def test_every_text_stands_on_its_pages_as_text(written: Written, visitor: Page) -> None:
    """It is there to the letter, and is no element; no script ran, and no request was blocked."""
    for path in PAGES:
        answer = visitor.goto(f"{written.url}/{path}")
        assert answer is not None
        assert answer.ok, path
        if visitor.locator("[data-plots]").count():
            expect(visitor.locator("[data-plots] .uplot").first).to_be_visible()
        texts = visitor.evaluate(TEXTS)
        for field, (text, pages) in FIELDS.items():
            written_as = (text, json.dumps(text)[1:-1])
            shown = any(each in told for told in texts for each in written_as)
            assert path not in pages or shown, f"{field} on {path}"
        assert elements_of_attacks(visitor) == 0, path


def elements_of_attacks(page: Page) -> int:
    """Return how many elements come from what was written into fields."""
    return page.locator("[onerror], img[src^='x'], main script, main svg script").count()


def test_marks_and_explanations_are_text(written: Written, visitor: Page) -> None:
    """The script writes text into a page, and no markup."""
    visitor.goto(f"{written.url}/sessions/a")
    seen = ""
    expect(visitor.locator(".marks button").first).to_be_visible()
    for mark in visitor.locator(".marks button").all():
        mark.focus()
        seen += visitor.get_by_role("tooltip").inner_text()
    assert ACTED in seen
    visitor.get_by_role("textbox", name="At step").fill("5")
    visitor.get_by_role("button", name="Explain").click()
    expect(visitor.locator("#explanation")).to_contain_text(ACTED)
    assert elements_of_attacks(visitor) == 0


def test_what_stands_in_an_address_is_text(
    written: Written, visitor: Page, watched: Watched
) -> None:
    """Nothing runs when a visitor follows an attacker's link to these pages."""
    watched.expected = ["status of 4"]
    for place in REFLECTING:
        asked = str(httpx.QueryParams({"it": ASKED})).removeprefix("it=")
        visitor.goto(f"{written.url}/{place.replace('{}', asked)}")
        assert elements_of_attacks(visitor) == 0, place


@pytest.mark.parametrize("field", REFUSED)
def test_a_name_takes_no_markup(written: Written, field: str) -> None:
    """Names are used in addresses, patterns and files: they have letters and a few signs only."""
    method, path, body = REFUSED[field]
    with open_http(written.url) as http:
        http.headers["authorization"] = f"Bearer {written.secret}"
        answer = http.request(method, f"/v1/{path}", json=body)
    assert answer.status_code == 422, answer.text


def test_what_forms_refuse_comes_back_as_text(
    written: Written, visitor: Page, watched: Watched
) -> None:
    """A form that is sent with an attack in every field shows it again, in its fields."""
    watched.expected = ["status of 4"]
    forms = ["sessions/b/control/scale", "sessions/b/control/replace", "create/kinds/cosine",
             "create/json", "sessions/b/manage", "admin"]  # fmt: skip
    for path in forms:
        visitor.goto(f"{written.url}/{path}")
        for number in range(visitor.locator("main form").count()):
            form = visitor.locator("main form").nth(number)
            if form.locator("input:not([type=radio]):not([type=checkbox]), textarea").count() == 0:
                continue
            for each in form.locator("input:visible:not([type=radio]), textarea:visible").all():
                each.fill(ASKED)
            form.locator("button").last.click()
            visitor.wait_for_load_state()
            assert elements_of_attacks(visitor) == 0, path
            visitor.goto(f"{written.url}/{path}")
