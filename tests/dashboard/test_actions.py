"""Every action is ordered through the browser, for a running training, and holds from its step.

The rates that a trainer used are compared with formulas that are written down here, not with the
service. On PostgreSQL there are three replicas, and each click goes to another one than the page
before.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

import postgres
from serving import PATIENCE, RunningService, open_http
from training import Training
from watched import Watched

BASE, TOTAL = 0.1, 2000

PLAN = {
    "base_lr": BASE,
    "schedule": {"kind": "cosine", "total_steps": TOTAL},
    "total_steps": TOTAL,
    "max_lookahead": 8,
}

Law = Callable[[float], float]
"""The learning rate by step."""


def cosine(step: float, total: int = TOTAL) -> float:
    """Return half a cosine from the base to zero, as in every textbook."""
    return BASE * (1 + math.cos(math.pi * step / total)) / 2


@pytest.fixture(name="urls", scope="module", params=["SQLite", "PostgreSQL, three replicas"])
def _urls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """Return the addresses of a service: of one process, or of three on one database."""
    expect.set_options(timeout=1000 * PATIENCE)
    with ExitStack() as ends:
        if request.param == "SQLite":
            database: Path | str = tmp_path_factory.mktemp("actions") / "pacesetter.db"
            many = 1
        else:
            database, many = ends.enter_context(postgres.database()), 3
        yield [ends.enter_context(RunningService(database)).url for _ in range(many)]


@dataclass
class Dashboard:
    """A browser whose clicks go to the replicas in turn."""

    page: Page
    urls: list[str]
    turns: "itertools.cycle[str]" = field(init=False)

    def __post_init__(self) -> None:
        self.turns = itertools.cycle(self.urls)

    def open(self, path: str) -> None:
        """Load a page from the next replica."""
        self.page.goto(f"{next(self.turns)}/{path}")

    def elsewhere(self) -> Page:
        """Load the same page from the next replica, which must learn of what is clicked there."""
        if len(self.urls) > 1:
            shown = urlsplit(self.page.url)
            self.open(f"{shown.path[1:]}?{shown.query}")
        return self.page

    def begin(self, name: str, link: str) -> None:
        """Follow a link from the page of a session to its form."""
        self.open(f"sessions/{name}")
        self.page.get_by_role("link", name=link, exact=True).click()
        self.elsewhere()

    def order(self, button: str, reason: str, fields: dict[str, str]) -> int:
        """Fill in the form of an order, preview its effect, and give it.

        Returns:
            The step from which it holds, as the page says it.
        """
        for label, text in fields.items():
            shown = self.page.get_by_label(label, exact=True)
            choose(shown, text)
        self.page.get_by_label("Why (for the record)").fill(reason)
        expect(self.page.locator("#rehearsal strong")).to_have_text(re.compile("From step"))
        self.page.get_by_role("button", name=button, exact=True).click()
        self.page.wait_for_url(re.compile("ordered="))
        said = self.elsewhere().get_by_role("status").filter(has_text="was taken").inner_text()
        expect(self.page.locator("#events")).to_contain_text(reason)
        return int(re.findall(r"from step ([\d,]+)", said)[0].replace(",", ""))


def choose(shown: Locator, text: str) -> None:
    """Write into a field, or choose one of its options."""
    if shown.evaluate("each => each.matches('select')"):
        shown.select_option(text)
    else:
        shown.fill(text)


@pytest.fixture(name="dashboard")
def _dashboard(page: Page, urls: list[str]) -> Dashboard:
    """Return a browser whose clicks go to the replicas in turn."""
    return Dashboard(page, urls)


@pytest.fixture(name="training")
def _training(urls: list[str], unique_name: str) -> Iterator[Training]:
    """Return a training that follows half a cosine, at one of the replicas."""
    with Training(urls[-1], unique_name, 0.01, **PLAN) as training:
        training.reach(3)
        yield training


def assert_followed(training: Training, before: Law, step: int, after: Law) -> None:
    """Assert that it trained by one law below a step, and by another one from that very step on."""
    used = training.reach(step + 12)
    assert before(step - 1) != pytest.approx(after(step), rel=1e-7), "nothing would be seen"
    for each, rate in used.items():
        law = before if each < step else after
        assert rate == pytest.approx(law(each), rel=1e-12, abs=1e-15), f"at step {each} of {step}"


@dataclass(frozen=True)
class Given:
    """An order as it is given in the browser, and the resulting law."""

    link: str
    button: str
    fields: dict[str, str]
    law: Callable[[int], Law]
    """From the step that it holds from."""


ORDERS = {
    "halve": Given(
        "Halve…", "Halve or multiply as shown", {}, lambda _: lambda step: cosine(step) / 2
    ),
    "multiply": Given(
        "Halve…",
        "Halve or multiply as shown",
        {"Factor": "0.3"},
        lambda _: lambda step: 0.3 * cosine(step),
    ),
    "set": Given("Set…", "Set as shown", {"Learning rate": "0.03"}, lambda _: lambda _step: 0.03),
    "set over some steps": Given(
        "Set…",
        "Set as shown",
        {"Learning rate": "0.03", "Reached over how many steps": "8"},
        lambda at: lambda step: cosine(at) + (0.03 - cosine(at)) * min((step - at) / 8, 1),
    ),
    "hold": Given("Hold…", "Hold as shown", {}, lambda at: lambda _: cosine(at)),
    "cool down": Given(
        "Cool down…",
        "Cool down as shown",
        {"Over how many steps": "10", "To which part of the present rate": "0.25"},
        lambda at: (
            lambda step: cosine(at) * (0.25 + 0.75 * (1 - math.sqrt(min((step - at) / 10, 1))))
        ),
    ),
    "extend": Given(
        "Extend…",
        "Extend or shorten as shown",
        {"The plan ends at step": "9000"},
        lambda at: lambda step: cosine(at + (step - at) * (TOTAL - at) / (9000 - at)),
    ),
    "extend, and keep the present rate first": Given(
        "Extend…",
        "Extend or shorten as shown",
        {"The plan ends at step": "9000", "How": "keep_then_tail"},
        lambda at: lambda _: cosine(at),
    ),
    "warm up again": Given(
        "Warm up…",
        "Warm up again as shown",
        {"Over how many steps": "10", "From which factor": "0.2"},
        lambda at: lambda step: cosine(step) * (0.2 + 0.8 * min((step - at) / 10, 1)),
    ),
    "replace": Given(
        "Replace…",
        "Replace the schedule as shown",
        {"Schedule": json.dumps({"kind": "cosine", "total_steps": 300})},
        lambda at: lambda step: cosine(step - at, 300),
    ),
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_order_reaches_the_trainer_at_the_step_that_the_page_said(
    dashboard: Dashboard, training: Training, what: str
) -> None:
    """Below that step it trained by the plan, and from there on by what was ordered."""
    given = ORDERS[what]
    dashboard.begin(training.name, given.link)
    step = dashboard.order(given.button, f"to {what}", given.fields)
    assert_followed(training, cosine, step, given.law(step))


def test_an_order_for_a_named_step_holds_from_there(
    dashboard: Dashboard, training: Training
) -> None:
    """It is pending until then, and the page names its step; afterwards it is no longer listed."""
    with training.standing_still():
        at = training.newest + 50
        dashboard.begin(training.name, "Halve…")
        fields = {"Factor": "0.125", "From which step": str(at)}
        assert dashboard.order("Halve or multiply as shown", "not yet", fields) == at
        expect(dashboard.page.locator("#orders")).to_contain_text(f"{at}")
    assert_followed(training, cosine, at, lambda step: cosine(step) / 8)
    dashboard.elsewhere()
    expect(dashboard.page.locator("#orders")).to_contain_text("None waits")


def test_an_order_that_was_cancelled_reaches_nobody(
    dashboard: Dashboard, training: Training
) -> None:
    """The trainer passes the step that it was for, and never hears of it."""
    with training.standing_still():
        at = training.newest + 50
        dashboard.begin(training.name, "Set…")
        fields = {"Learning rate": "0.07", "From which step": str(at)}
        dashboard.order("Set as shown", "a mistake", fields)
        dashboard.elsewhere().get_by_role("button", name="Cancel order 1").click()
        dashboard.page.wait_for_url(re.compile("cancelled=1"))
        expect(dashboard.elsewhere().locator("#orders")).to_contain_text("None waits")
    for step, rate in training.reach(at + 5).items():
        assert rate == pytest.approx(cosine(step), rel=1e-12)


def test_a_hold_is_released(dashboard: Dashboard, training: Training) -> None:
    """The page that offered to hold offers to release; the plan is later by the steps held."""
    dashboard.begin(training.name, "Hold…")
    held = dashboard.order("Hold as shown", "wait and see", {})
    training.reach(held + 5)
    dashboard.begin(training.name, "Release…")
    released = dashboard.order("Release as shown", "go on", {})
    used = training.reach(released + 12)
    for step, rate in used.items():
        clock = step if step < held else held + max(step - released + 1, 0)
        assert rate == pytest.approx(cosine(clock), rel=1e-12), (held, released, step)


def test_an_order_is_undone_from_the_page_that_tells_of_it(
    dashboard: Dashboard, training: Training
) -> None:
    """A revert is offered beside each change; the plan holds again, as far as it is by then."""
    dashboard.begin(training.name, "Halve…")
    done = dashboard.order("Halve or multiply as shown", "too hot", {})
    training.reach(done + 3)
    dashboard.page.get_by_role("link", name="go back to the plan").click()
    dashboard.elsewhere()
    undone = dashboard.order("Back to the plan as shown", "it was not", {})
    used = training.reach(undone + 12)
    for step, rate in used.items():
        factor = 0.5 if done <= step < undone else 1
        assert rate == pytest.approx(factor * cosine(step), rel=1e-12), (done, undone, step)


def test_a_limit_refuses_what_oversteps_it(
    dashboard: Dashboard, training: Training, watched: Watched
) -> None:
    """The plan is not held to it, but the next order is: the page says so and orders nothing."""
    watched.expected = ["422"]
    dashboard.begin(training.name, "Limit…")
    step = dashboard.order("Limit as shown", "careful", {"Greatest learning rate": "0.02"})
    training.reach(step)
    dashboard.begin(training.name, "Set…")
    dashboard.page.get_by_label("Learning rate", exact=True).fill("0.08")
    dashboard.page.get_by_label("Why (for the record)").fill("not careful")
    dashboard.page.get_by_role("button", name="Set as shown").click()
    expect(dashboard.page.get_by_role("alert")).to_contain_text("0.02")
    for each, rate in training.reach(training.newest + 30).items():
        assert rate == pytest.approx(cosine(each), rel=1e-12)


def test_a_stage_is_begun_by_hand(dashboard: Dashboard, unique_name: str) -> None:
    """Only a session that has stages offers the next one."""
    stage = {"when": {"kind": "by_hand"}, "schedule": {"kind": "cosine", "total_steps": 400}}
    rule = {"kind": "switch", "metric": "loss", "stages": [stage]}
    with Training(dashboard.urls[-1], unique_name, 0.01, controllers=[rule], **PLAN) as training:
        training.reach(3)
        dashboard.begin(unique_name, "Halve…")
        dashboard.page.get_by_role("link", name="Next stage").click()
        dashboard.elsewhere()
        step = dashboard.order("Next stage as shown", "it has settled", {})
        assert_followed(training, cosine, step, lambda each: cosine(each - step, 400))


def test_an_order_is_for_the_groups_that_were_chosen(
    dashboard: Dashboard, unique_name: str
) -> None:
    """The other group goes on by the plan."""
    groups = {"body": {"base_lr": BASE}, "head": {"base_lr": BASE}}
    spec = {**PLAN, "base_lr": None, "groups": groups}
    with Training(dashboard.urls[-1], unique_name, 0.01, group="head", **spec) as training:
        training.reach(3)
        dashboard.begin(unique_name, "Halve…")
        dashboard.page.get_by_label("head").check()
        step = dashboard.order("Halve or multiply as shown", "the head alone", {})
        assert_followed(training, cosine, step, lambda each: cosine(each) / 2)
        for each, values in training.values.items():
            assert values["body.lr"] == pytest.approx(cosine(each), rel=1e-12)


def manage(dashboard: Dashboard, name: str) -> Page:
    """Follow the link from the page of a session to its management page."""
    dashboard.begin(name, "Labels, fork, end, archive…")
    return dashboard.page


def test_a_fork_is_trained_by_its_own_plan(
    dashboard: Dashboard, training: Training, unique_name: str
) -> None:
    """A trainer that goes on from its step gets that plan; the first one is not affected."""
    training.reach(20)
    other = {"schedule": {"kind": "cosine", "total_steps": 5000}, "total_steps": 5000}
    page, fork = manage(dashboard, training.name), f"{unique_name}-longer"
    page.get_by_label("Name of the new session").fill(fork)
    page.get_by_label("From which step").fill("10")
    page.get_by_label("What differs from there on (JSON)").fill(json.dumps(other))
    page.get_by_role("button", name="Fork", exact=True).click()
    page.wait_for_url(f"**/sessions/{fork}")
    expect(dashboard.elsewhere().locator("h1")).to_have_text(fork)
    with Training(dashboard.urls[0], fork, 0.01, step=10) as longer:
        for step, rate in longer.reach(25).items():
            assert rate == pytest.approx(cosine(step, 5000), rel=1e-12)
        expect(page.locator("#facts .pill").first).to_have_text("running")
    for step, rate in training.reach(training.newest + 5).items():
        assert rate == pytest.approx(cosine(step), rel=1e-12)


def test_steps_that_were_looked_at_are_taken_back_so_that_an_order_holds_soon(
    dashboard: Dashboard, unique_name: str
) -> None:
    """The form of the order leads there; the trainer goes on in the next attempt."""
    plan = {**PLAN, "max_lookahead": 40}
    with Training(dashboard.urls[-1], unique_name, 0.01, **plan) as training:
        training.reach(3)
        page = dashboard.page
        with training.standing_still(), open_http(dashboard.urls[0]) as http:
            known = http.get(f"/v1/sessions/{unique_name}").json()
            look = {"want": {"start": known["horizon"], "count": 30}}
            http.post(f"/v1/sessions/{unique_name}/sync", json=look).raise_for_status()
            late = http.get(f"/v1/sessions/{unique_name}").json()["horizon"]
            dashboard.begin(unique_name, "Halve…")
            expect(page.locator("#rehearsal strong")).to_have_text(f"From step {late}")
            page.get_by_role("link", name="take them back").click()
            dashboard.elsewhere()
            page.locator("#back-reason").fill("only looked at")
            page.get_by_role("button", name="Take them back").click()
            page.wait_for_url(f"**/sessions/{unique_name}")
            expect(dashboard.elsewhere().locator("#attempts")).to_contain_text("2 running")
            dashboard.begin(unique_name, "Halve…")
            step = dashboard.order("Halve or multiply as shown", "soon", {})
            assert step < late
        assert_followed(training, cosine, step, lambda each: cosine(each) / 2)


def test_a_training_that_was_said_to_be_over_goes_on_if_it_is_not(
    dashboard: Dashboard, training: Training
) -> None:
    """An operator ends the session; the trainer that still trains makes it active again."""
    page = manage(dashboard, training.name)
    page.get_by_label("failed").check()
    page.locator("#finish-reason").fill("the machine is gone")
    page.get_by_role("button", name="It is over").click()
    page.wait_for_url(f"**/sessions/{training.name}")
    expect(dashboard.elsewhere().locator("#events")).to_contain_text("the machine is gone")
    for step, rate in training.reach(training.newest + 30).items():
        assert rate == pytest.approx(cosine(step), rel=1e-12)
    expect(page.locator("#events")).to_contain_text("active again")
    expect(page.locator("#facts .pill").first).to_have_text("running")


def test_what_is_over_is_said_archived_and_purged(
    dashboard: Dashboard, urls: list[str], unique_name: str
) -> None:
    """Each form follows on the page of the one before; in the end there is no such session."""
    with Training(urls[-1], unique_name, 0.01, **PLAN) as training:
        training.reach(12)
    page = manage(dashboard, unique_name)
    page.locator("#labels").fill("team: vision\nowner: kim")
    page.get_by_role("button", name="Save").last.click()
    page.wait_for_url(f"**/sessions/{unique_name}")
    expect(dashboard.elsewhere().locator("#facts")).to_contain_text("owner: kim")
    manage(dashboard, unique_name)
    page.locator("#finish-reason").fill("good enough")
    page.get_by_role("button", name="It is over").click()
    page.wait_for_url(f"**/sessions/{unique_name}")
    expect(dashboard.elsewhere().locator("#facts .pill").first).to_have_text("finished")
    for button, sure, left in (
        ("Archive", "#archive-name", "archived"),
        ("Purge", "#purge-name", ""),
    ):
        manage(dashboard, unique_name)
        page.locator(sure).fill(unique_name)
        page.get_by_role("button", name=button, exact=True).click()
        page.wait_for_url(f"**/sessions/{unique_name}" if left else "**/")
        if left:
            expect(dashboard.elsewhere().locator("#facts .pill").first).to_have_text(left)
    with open_http(urls[0]) as http:
        assert http.get(f"/v1/sessions/{unique_name}").status_code == 404


class TorchTraining(Training):
    """A training in which an optimizer of torch takes the rates, and moves weights by them."""

    def _train(self) -> None:
        import torch

        from pacesetter.torch import RemoteLR

        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=BASE)
        scheduler = RemoteLR(optimizer, self._session, metric="loss")
        inputs = torch.randn(16, 4)
        step = 0
        while not self._over.wait(self._pace):
            with self._turn:
                optimizer.zero_grad()
                loss = model(inputs).mean()  # by the bias its slope is 1, wherever that is
                loss.backward()
                before = float(model.bias.detach())
                optimizer.step()
                moved = before - float(model.bias.detach())
                with self._moved:
                    self._used[step] = float(optimizer.param_groups[0]["lr"])
                    self._values[step] = {"moved": moved}
                    self._moved.notify_all()
                scheduler.step(float(loss.detach()))
            step += 1


def test_weights_move_by_the_rate_from_the_step_that_the_page_said(
    dashboard: Dashboard, unique_name: str
) -> None:
    """The optimizer then has the rate, and weights move half as far as by the plan."""
    with TorchTraining(dashboard.urls[-1], unique_name, 0.02, **PLAN) as training:
        training.reach(3)
        dashboard.begin(unique_name, "Halve…")
        step = dashboard.order("Halve or multiply as shown", "too hot", {})
        assert_followed(training, cosine, step, lambda each: cosine(each) / 2)
        for each in (step - 1, step):
            moved = training.values[each]["moved"]
            assert moved == pytest.approx(training.used[each], rel=1e-3), each
