"""Templates on the dashboard: previewed, published, published anew, and deprecated."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import httpx
import pytest
from playwright.sync_api import Page, expect

from serving import RunningService, open_http

ADMIN = "an-admin-token-of-this-test-0123456789abcdef"

SPEC = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": {"$": "steps"}}}

PARAMETERS = {"steps": {"description": "how long", "example": 50}}


@pytest.fixture(name="name")
def _name(unique_name: str) -> str:
    """Return the name of a template."""
    return f"t{abs(hash(unique_name))}"


def send(http: httpx.Client, name: str, do: str, **change: object) -> httpx.Response:
    """Send the form of a template."""
    said = {
        "name": name,
        "description": "ours",
        "parameters": json.dumps(PARAMETERS),
        "spec": json.dumps(SPEC),
        "do": do,
        **change,
    }
    return http.post("/create/template", data=said)


def test_a_template_is_tried_published_changed_and_deprecated(
    server_url: str, page: Page, http: httpx.Client, name: str
) -> None:
    """In a browser, the curve and the differences appear as the fields change."""
    page.goto(f"{server_url}/templates")
    page.get_by_role("link", name="Publish a template…").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("What it is for").fill("<b>ours</b>")
    page.get_by_label("Parameters (JSON)").fill(json.dumps(PARAMETERS))
    page.get_by_label("Spec (JSON)").fill(json.dumps(SPEC))
    expect(page.locator("#tried svg.chart")).to_be_visible()
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url(f"**/templates/{name}")
    expect(page.locator("#newest")).to_have_text("Version 1")
    page.get_by_role("link", name="Publish another version…").click()
    expect(page.locator("#tried")).to_contain_text("changes nothing")
    page.get_by_label("Spec (JSON)").fill(json.dumps({**SPEC, "base_lr": 0.25}))
    expect(page.locator("#tried")).to_contain_text("/spec/base_lr")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#newest")).to_have_text("Version 2")
    row = page.locator("tr", has_text="Deprecate").nth(1)
    row.locator("summary").click()
    row.get_by_label("Why, and what to use").fill("too cold: take version 2")
    row.get_by_role("button", name="Deprecate version 1").click()
    expect(page.locator("#versions ~ .scroll table").first).to_contain_text("too cold")
    known = http.get(f"/v1/templates/{name}").json()["templates"]
    told = {each["version"]: each["deprecated"] for each in known}
    assert told == {1: "too cold: take version 2", 2: None}
    assert known[0]["template"]["description"] == "<b>ours</b>"


def test_a_preview_publishes_nothing(http: httpx.Client, name: str) -> None:
    """It shows a session of the template, without a script too."""
    shown = send(http, name, "preview")
    assert (shown.status_code, "<svg" in shown.text) == (200, True), shown.text
    assert http.get(f"/v1/templates/{name}").status_code == 404


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "a b"}, "name"),
        ({"spec": "{"}, "spec: this is no JSON"),
        ({"spec": '{"base_lr": {"$": "rate"}}'}, "rate"),
        ({"spec": '{"base_lr": 0.1}'}, "fills nothing"),
        ({"parameters": "[]"}, "parameters"),
        ({"parameters": '{"steps": {}}'}, "example"),
    ],
)
def test_a_wrong_template_is_told_and_kept(
    http: httpx.Client, name: str, change: dict[str, str], told: str
) -> None:
    """Nothing is published; the form comes back as it was sent, with the error."""
    said = {"name": name, **change}
    answer = send(http, said.pop("name"), "publish", **said)
    assert answer.status_code == 422
    assert told in unescape(answer.text)
    assert http.get(f"/v1/templates/{name}").status_code == 404
    for sent in change.values():
        assert sent in unescape(answer.text)


def test_a_deprecation_needs_a_reason_and_a_version(http: httpx.Client, name: str) -> None:
    """Users of the version must learn what to use instead."""
    send(http, name, "publish")
    for reason in ("", "  ", "two\nlines"):
        answer = http.post(f"/templates/{name}/1/deprecate", data={"reason": reason})
        assert answer.status_code == 422, reason
    assert http.post(f"/templates/{name}/7/deprecate", data={"reason": "x"}).status_code == 404
    assert http.get(f"/create/template?of={name}").status_code == 200
    assert http.get("/create/template?of=none-such").status_code == 404


ATTACK = '"><img src=x onerror="document.title=1"><script>document.title=1</script>'


def test_no_text_of_a_template_becomes_a_part_of_a_page(http: httpx.Client, name: str) -> None:
    """These are its purpose, the meaning of its parameters, its spec, and why it is deprecated."""
    parameters = {"steps": {"description": ATTACK, "default": 50}}
    spec = {**SPEC, "labels": {"note": ATTACK}}
    said = {"description": ATTACK, "parameters": json.dumps(parameters), "spec": json.dumps(spec)}
    pages = [send(http, name, "preview", **said).text]
    assert send(http, name, "publish", **said).status_code == 303
    pages.append(send(http, name, "preview", **{**said, "description": "other"}).text)
    assert http.post(f"/templates/{name}/1/deprecate", data={"reason": ATTACK}).is_redirect
    shown = (f"/templates/{name}", "/templates", f"/create/template?of={name}")
    pages += [http.get(path).text for path in shown]
    for page in pages:
        assert "onerror" in page
        assert "<img src=x" not in page
        assert "<script>document" not in page


def test_roles_and_scopes_hold_for_templates(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A viewer gets no button; an operator publishes and deprecates within its scope."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        http.headers["origin"] = service.url
        bearer = {"authorization": f"Bearer {ADMIN}"}

        @contextmanager
        def logged_in(role: str, *scope: str) -> Iterator[httpx.Client]:
            asked = {"name": role, "role": role, "scope": scope}
            made = http.post("/v1/tokens", json=asked, headers=bearer).json()["token"]
            with open_http(service.url) as visitor:
                visitor.headers["origin"] = service.url
                visitor.post("/login", data={"token": made})
                yield visitor

        with logged_in("viewer") as viewer, logged_in("operator", "team-a-*") as operator:
            assert send(operator, "team-b-x", "publish").status_code == 422
            assert send(operator, "team-a-x", "publish").status_code == 303
            assert send(viewer, "team-a-x", "publish").status_code == 403
            assert viewer.get("/create/template").status_code == 403
            for page in ("/templates", "/templates/team-a-x"):
                assert "Publish" not in viewer.get(page).text
            assert "Deprecate" not in viewer.get("/templates/team-a-x").text
            assert re.search("Publish", operator.get("/templates").text)
            address = "/templates/team-a-x/1/deprecate"
            assert viewer.post(address, data={"reason": "x"}).status_code == 403
            body = {"name": "team-b-x", "spec": {"base_lr": 0.1}}
            http.post("/v1/templates", json=body, headers=bearer).raise_for_status()
            other = address.replace("team-a", "team-b")
            assert operator.post(other, data={"reason": "x"}).status_code == 403
            assert operator.get("/create/template?of=team-b-x").status_code == 403
            assert operator.post(address, data={"reason": "old"}).status_code == 303
