"""Templates, over HTTP against a real service."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def template(name: str, **changes: Any) -> dict[str, Any]:
    """Return a template of a warmup and a cosine whose length is a hole."""
    body: dict[str, Any] = {
        "name": name[:60],
        "description": "our pretraining",
        "parameters": {
            "total_steps": {"description": "length of the run", "example": 1000},
            "base_lr": {"default": 0.001},
        },
        "spec": {
            "base_lr": {"$": "base_lr"},
            "total_steps": {"$": "total_steps"},
            "labels": {"team": "vision"},
            "schedule": {
                "kind": "warmup",
                "steps": {"fraction": 0.1},
                "schedule": {"kind": "cosine", "total_steps": {"fraction": 0.9}},
            },
        },
    }
    return body | changes


def publish(http: httpx.Client, body: dict[str, Any]) -> str:
    """Publish a template, and return its reference."""
    answer = http.post("/v1/templates", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["reference"])


def test_a_session_is_made_from_a_template(http: httpx.Client, unique_name: str) -> None:
    """The holes are filled, the session records its origin, and its labels are merged."""
    reference = publish(http, template(unique_name))
    body = {
        "name": unique_name,
        "template": reference,
        "with": {"total_steps": 200},
        "labels": {"run": "7"},
    }
    answer = http.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    assert (spec["base_lr"], spec["total_steps"]) == (0.001, 200)
    assert spec["labels"] == {"team": "vision", "run": "7"}
    assert spec["origin"] == {"template": reference, "values": {"total_steps": 200}}
    window = {"want": {"start": 0, "count": 200}}
    rates = http.post(f"/v1/sessions/{unique_name}/sync", json=window).json()["series"]["lr"]
    assert rates[20] == max(rates) == 0.001
    assert http.post("/v1/sessions", json=body).status_code == 200


def test_a_version_never_changes(http: httpx.Client, unique_name: str) -> None:
    """A changed body is a new version, the same body the same one; old versions stay."""
    first = publish(http, template(unique_name))
    assert publish(http, template(unique_name)) == first
    second = publish(http, template(unique_name, description="better"))
    assert second == first.replace("@1", "@2")
    versions = http.get(f"/v1/templates/{first.partition('@')[0]}").json()["templates"]
    assert [each["template"]["description"] for each in versions] == ["our pretraining", "better"]
    listed = http.get("/v1/templates").json()["templates"]
    assert second in [each["reference"] for each in listed]
    assert first not in [each["reference"] for each in listed]


def test_versions_are_compared(http: httpx.Client, unique_name: str) -> None:
    """The difference has each place, with the value before and after."""
    name = publish(http, template(unique_name)).partition("@")[0]
    changed = template(unique_name)
    changed["parameters"]["base_lr"]["default"] = 0.002
    changed["spec"]["ranks"] = 8
    publish(http, changed)
    answer = http.get(f"/v1/templates/{name}/diff", params={"before": 1, "after": 2}).json()
    assert answer["differences"] == [
        {"pointer": "/parameters/base_lr/default", "before": 0.001, "after": 0.002},
        {"pointer": "/spec/ranks", "before": None, "after": 8},
    ]


def test_a_deprecated_template_warns(http: httpx.Client, unique_name: str) -> None:
    """It still works, and its user is told why not to use it."""
    reference = publish(http, template(unique_name))
    path = f"/v1/templates/{reference.replace('@', '/')}"
    assert http.post(f"{path}/deprecate", json={"reason": "diverges"}).status_code == 200
    assert http.get(path).json()["deprecated"] == "diverges"
    body = {"name": unique_name, "template": reference, "with": {"total_steps": 200}}
    warnings = http.post("/v1/sessions", json=body).json()["warnings"]
    warning = {each["code"]: each for each in warnings}["template_deprecated"]
    assert "diverges" in warning["message"]
    newer = f"GET /v1/templates/{reference.partition('@')[0]}"
    assert warning["advice"] == f"look for a newer version: {newer}"


BAD_USES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a missing parameter": ({"with": {}}, 422, "needs total_steps"),
    "a misspelt parameter": (
        {"with": {"total_step": 5, "total_steps": 9}},
        422,
        "Did you mean 'total_steps'?",
    ),
    "a value of the wrong type": ({"with": {"total_steps": "many"}}, 422, "/total_steps"),
    "no version": ({"template": "some"}, 422, "with its version"),
    "an unknown version": ({"template": "some@77"}, 404, "GET /v1/templates"),
    "a field that the template sets": ({"schedule": "constant"}, 422, "/schedule"),
}


@pytest.mark.parametrize(("changes", "status", "hint"), BAD_USES.values(), ids=BAD_USES)
def test_a_wrong_use_says_what_is_wrong(
    http: httpx.Client, unique_name: str, changes: dict[str, Any], status: int, hint: str
) -> None:
    """Nothing is created, and the answer names the mistake."""
    reference = publish(http, template(unique_name))
    name = f"use-{abs(hash(hint))}"
    body = {"name": name, "template": reference, "with": {"total_steps": 9}, **changes}
    answer = http.post("/v1/sessions", json=body)
    assert answer.status_code == status, answer.text
    assert hint in answer.json()["detail"]
    assert http.get(f"/v1/sessions/{name}").status_code == 404


BAD_TEMPLATES: dict[str, tuple[dict[str, Any], str]] = {
    "a hole that is no parameter": (
        {"spec": {"base_lr": {"$": "base_l"}, "total_steps": {"$": "total_steps"}}},
        "Did you mean 'base_lr'?",
    ),
    "a parameter without a hole": ({"spec": {"base_lr": 0.1}}, "fills nothing"),
    "a spec that cannot work": (
        {"parameters": {}, "spec": {"base_lr": 0.1, "schedule": {"kind": "cosin"}}},
        "Did you mean 'cosine'?",
    ),
    "a spec with a name": (
        {"parameters": {}, "spec": {"name": "x", "base_lr": 0.1}},
        "Leave `name` out",
    ),
    "a parameter that nobody can try": (
        {"parameters": {"base_lr": {}}, "spec": {"base_lr": {"$": "base_lr"}}},
        "`example`",
    ),
}


@pytest.mark.parametrize(("changes", "hint"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_a_template_that_can_not_work_is_not_published(
    http: httpx.Client, unique_name: str, changes: dict[str, Any], hint: str
) -> None:
    """A template that would fail for every user is refused at publication."""
    answer = http.post("/v1/templates", json=template(unique_name, **changes))
    assert answer.status_code == 422
    assert hint in answer.json()["detail"]


def test_templates_survive_a_restart(service: Any) -> None:
    """Templates are in the database like everything else."""
    with open_http(service.url) as http:
        publish(http, template("kept"))
    service.kill()
    service.start()
    with open_http(service.url) as http:
        assert http.get("/v1/templates/kept/1").status_code == 200
