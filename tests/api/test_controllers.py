"""The catalogue of controllers, over HTTP and in the documents."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.controllers import Controller, ControllerState
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from serving import open_http

TESTS = Path(__file__).parents[1]


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def test_the_catalogue_lists_every_kind(http: httpx.Client) -> None:
    """The list has each kind once, as its own address describes it."""
    listed = http.get("/v1/controllers").json()["controllers"]
    assert [each["kind"] for each in listed] == sorted(Controller.kinds)
    for each in listed:
        assert http.get(f"/v1/controllers/{each['kind']}").json() == each


def test_a_misspelt_kind_is_answered_with_the_nearest(http: httpx.Client) -> None:
    """An unknown kind is a 404 that names the kind that was probably meant."""
    answer = http.get("/v1/controllers/plateu")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_kind")
    assert "Did you mean 'plateau'? GET /v1/controllers lists" in answer.json()["detail"]


def test_the_example_of_every_kind_can_be_created(http: httpx.Client, unique_name: str) -> None:
    """A session with the example of any kind is created, and starts."""
    for kind in catalogue.controllers():
        spec = {
            "name": f"{unique_name}-{kind}",
            "base_lr": 0.1,
            "controllers": [catalogue.describe_controller(kind)["example"]],
            "total_steps": 1000,
            "steps_per_epoch": 100,
        }
        answer = http.post("/v1/sessions", json=spec)
        assert answer.status_code == 201, answer.text
        stepped = http.post(f"/v1/sessions/{spec['name']}/sync", json={"step": 0})
        assert stepped.status_code == 200, stepped.text


@pytest.mark.parametrize("kind", catalogue.controllers())
def test_every_kind_says_what_it_is(kind: str) -> None:
    """Each kind has a description, a one-line formula, a source, and typed parameters."""
    about = catalogue.describe_controller(kind)
    assert len(about["description"]) > 60
    assert about["description"] != Controller.__doc__
    assert about["formula"]
    assert "\n" not in about["formula"]
    assert about["source"]
    assert about["watches"]


@pytest.mark.parametrize("kind", catalogue.controllers())
def test_every_kind_has_a_state_of_its_own_making(kind: str) -> None:
    """`init` returns the kind's own `State`, so that it can be read back from the disk."""
    example = catalogue.describe_controller(kind)["example"]
    spec = {
        "name": "x",
        "base_lr": 0.1,
        "controllers": [example],
        "total_steps": 1000,
        "steps_per_epoch": 100,
    }
    [state] = create(SessionSpec.model_validate(spec)).control.states
    assert isinstance(state, ControllerState)
    assert type(state) is Controller.kinds[kind].State


@pytest.mark.parametrize("kind", catalogue.controllers())
def test_every_kind_is_tested_by_name(kind: str) -> None:
    """Some test of the core names the kind."""
    modules = (TESTS / "core").rglob("test_*.py")
    words = [f'"{kind}"']
    if "." not in kind:  # presets are named as their library's own classes
        words.append(f"{Controller.kinds[kind].__name__}(")
    assert any(any(word in path.read_text() for word in words) for path in modules)
