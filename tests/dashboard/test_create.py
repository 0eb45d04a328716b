"""Creating sessions on the dashboard."""

import json
import re
from html import unescape

import httpx
import pytest

from pacesetter_service.catalogue import kinds


def area(page: str) -> str:
    """Return the text of the text area of a page."""
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert found is not None
    return unescape(found[1])


def fields(page: str) -> dict[str, str]:
    """Return the values of the form of a schedule."""
    form = page.partition('<form class="stack"')[2].partition("</form>")[0]
    said = dict(re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', form))
    said |= dict(
        re.findall(r'<textarea[^>]* name="([^"]+)"[^>]*>(.*?)</textarea>', form, re.DOTALL)
    )
    for name, options in re.findall(r'<select[^>]* name="([^"]+)">(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r"<option selected>([^<]*)", options)
        said[name] = chosen[1] if chosen else ""
    return {name: unescape(text) for name, text in said.items()}


def test_every_kind_of_schedule_has_a_picture_and_a_form(http: httpx.Client) -> None:
    """The gallery leads to each; its form is filled with its example at first."""
    gallery = http.get("/create").text
    for kind in kinds.schedules():
        assert f'href="./create/kinds/{kind}"' in gallery
        assert "<path" in http.get(f"/create/pictures/{kind}").text, kind
    assert 'kinds/cosine"' in http.get("/create", params={"q": "half a cosine"}).text
    assert http.get("/create/kinds/cosin").status_code == 404


@pytest.mark.parametrize(
    "kind", ["cosine", "warmup_cosine", "sequence", "product", "torch.OneCycleLR", "table"]
)
def test_a_form_sent_as_it_is_makes_the_example(
    http: httpx.Client, unique_name: str, kind: str
) -> None:
    """The form's initial values are what is created, to the value."""
    address = f"/create/kinds/{kind}"
    said = {**fields(http.get(address).text), "name": unique_name}
    shown = http.post(address, data={**said, "do": "preview"})
    assert (shown.status_code, "<svg" in shown.text) == (200, True), shown.text
    made = http.post(address, data={**said, "do": "create"})
    assert made.status_code == 303, made.text
    spec = http.get(f"/v1/sessions/{unique_name}").json()["spec"]
    asked = {**kinds.describe_schedule(kind)["example"]}
    again = {"name": unique_name, "base_lr": 0.1, "schedule": asked}
    if said["total_steps"]:
        again["total_steps"] = int(said["total_steps"])
    assert http.post("/v1/sessions", json=again).status_code == 200, spec


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"base_lr": "a lot"}, "no JSON"),
        ({"base_lr": "NaN"}, "no number"),
        ({"p.total_steps": "-3"}, "total_steps"),
        ({"p.total_steps": "soon"}, "total_steps"),
        ({"p.total": "3"}, "Did you mean"),
        ({"more": "[1]"}, "write an object"),
        ({"more": '{"controllers": [{"kind": "plateua"}]}'}, "plateau"),
    ],
)
def test_a_wrong_field_is_told(
    http: httpx.Client, unique_name: str, change: dict[str, str], told: str
) -> None:
    """Nothing is created, and the page says what is wrong."""
    said = {"name": unique_name, "base_lr": "0.1", "p.total_steps": "10", **change}
    answer = http.post("/create/kinds/cosine", data={**said, "do": "create"})
    assert answer.status_code == 422
    assert told in unescape(answer.text)
    assert http.get(f"/v1/sessions/{unique_name}").status_code == 404


@pytest.mark.parametrize("do", ["preview", "create"])
def test_a_spec_does_not_say_what_it_was_forked_from(
    http: httpx.Client, unique_name: str, do: str
) -> None:
    """Only a fork has an origin: the record would otherwise claim a false past."""
    origin = {"session": "another", "step": 5}
    spec = {"name": unique_name, "base_lr": 0.1, "forked_from": origin}
    answer = http.post("/create/json", data={"spec": json.dumps(spec), "do": do})
    assert (answer.status_code, "The service writes this" in answer.text) == (422, True)
    assert http.get(f"/v1/sessions/{unique_name}").status_code == 404


def test_pitfalls_are_told_before_a_session_is_made(http: httpx.Client) -> None:
    """They come with the remedy and the source."""
    said = {"name": "", "base_lr": "5", "total_steps": "1000", "p.total_steps": "10"}
    answer = http.post("/create/kinds/cosine", data={**said, "do": "preview"})
    assert 'class="message warn"' in answer.text


def test_advice_leads_to_a_session(http: httpx.Client, unique_name: str) -> None:
    """The proposed spec is put into a form, and is created as it is."""
    said = {"architecture": "transformer", "regime": "fine-tune", "total_steps": "5000"}
    page = http.get("/create/advise", params=said).text
    assert "transformers diverge without a warmup" in page
    spec = json.loads(unescape(re.search(r'name="spec" value="([^"]*)"', page)[1]))
    form = http.post("/create/json", data={"spec": json.dumps(spec), "do": "preview"}).text
    spec = {**json.loads(area(form)), "name": unique_name}
    made = http.post("/create/json", data={"spec": json.dumps(spec), "do": "create"})
    assert made.headers["location"] == f"../sessions/{unique_name}"
    wrong = http.get("/create/advise", params={**said, "total_steps": "many"})
    assert (wrong.status_code, "total_steps" in wrong.text) == (422, True)


def test_a_template_is_shown_compared_and_used(http: httpx.Client, unique_name: str) -> None:
    """The page has its versions, what differs between two, and a session of it."""
    name = unique_name[:60]
    for base in (0.1, 0.2):
        body = {
            "name": name,
            "description": "<b>ours</b>",
            "parameters": {"steps": {"description": "how long", "example": 50}},
            "spec": {
                "base_lr": base,
                "schedule": {"kind": "cosine", "total_steps": {"$": "steps"}},
            },
        }
        http.post("/v1/templates", json=body).raise_for_status()
    assert f"templates/{name}" in http.get("/templates").text
    page = http.get(f"/templates/{name}").text
    assert "/base_lr" in page
    assert "&lt;b&gt;ours" in page
    use = json.loads(area(page))
    assert use["template"] == f"{name}@2"
    look = http.post("/create/json", data={"spec": json.dumps(use), "do": "preview"})
    assert (look.status_code, "<svg" in look.text) == (200, True), look.text
    made = {"spec": json.dumps({**use, "name": unique_name}), "do": "create"}
    assert http.post("/create/json", data=made).status_code == 303
    assert http.get("/templates/none-such").status_code == 404
