"""Python reaches all of the API: every operation, and every field of what operators send."""

import inspect
from collections.abc import Generator
from typing import Any

import pytest

from both import KINDS, opened
from pacesetter import AsyncClient, Client
from pacesetter._operation import Call, Download, Feed, Listing, Operation, Upload
from pacesetter._operations import Operations
from pacesetter._plan import Plan
from pacesetter_service.api.access import route_of
from pacesetter_service.core.actions import Action
from serving import open_http

METHODS = {
    name: each
    for name, each in inspect.getmembers_static(Operations)
    if isinstance(each, Operation | Listing)
}

PLAN = Plan.parse(
    {
        "id": "1",
        "session": "s",
        "metric": "loss",
        "predicts": "nothing",
        "horizon": 1,
        "total_steps": 2,
        "findings": [],
        "candidates": [],
        "probe": None,
        "unknown": [],
    },
    {"metric": "loss"},
)

SAMPLES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    **dict.fromkeys(METHODS, (("s",), {})),
    **dict.fromkeys(("tokens", "version", "sessions", "status"), ((), {})),
    "scale": (("s", 0.5), {}),
    "set": (("s", 0.5), {}),
    "retime": (("s", 10), {}),
    "rewarm": (("s", 10), {}),
    "replace": (("s", {"kind": "constant"}), {}),
    "order": (("s", {"kind": "hold"}), {}),
    "cancel": (("s", 1), {}),
    "fork": (("s", "t"), {"step": 1}),
    "restart": (("s",), {"step": 1}),
    "relabel": (("s", {}), {}),
    "prune": ((), {"older_than": 1}),
    "lr": (("s", 0), {}),
    "merge": (("s", [1, 2]), {}),
    "explain": (("s", 0), {}),
    "preview": (({"kind": "constant"},), {}),
    "preview_picture": (({"kind": "constant"},), {}),
    "lint": (({},), {}),
    "recommend": (("cnn", 10), {}),
    "publish_template": (({},), {}),
    "template": (("s", 1), {}),
    "diff_templates": (("s", 1, 2), {}),
    "deprecate_template": (("s", 1, "old"), {}),
    "create_token": (("ann", "viewer"), {}),
    "import_session": (("file",), {}),
    "compare": ((["s", "t"],), {}),
    "compare_picture": ((["s", "t"],), {}),
    "export": (("s", "file"), {}),
    "plan": (("s", "loss"), {}),
    "apply_plan": (("s", PLAN), {}),
}
"""How each operation may be called."""

ELSEWHERE = {
    # What a training says and asks, by `Client.session`.
    "POST /v1/sessions/{name}/sync",
    # Probes, and what monitoring reads.
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
}
"""What no operation reaches."""

OTHER_FORMS = [
    ("events", ("s",), {"follow": True}),
    ("events", (), {}),
    ("events", (), {"follow": True}),
    ("templates", (), {}),
    ("schedules", (), {}),
    ("controllers", (), {}),
    ("actions", (), {}),
    ("picture", ("s", "forecast"), {}),
]
"""How some of them reach another address."""


def address(method: str, path: str) -> str:
    """Return what is called as the routes have it."""
    route = route_of(method, path)
    assert route is not None, f"there is no {method} {path}"
    return f"{method} {route}"


def called(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return what an operation calls first."""
    asked = METHODS[name].describe(None, *args, **kwargs)
    if isinstance(asked, Generator):
        call = next(asked)
        asked.close()
        return address(call.method, call.path)
    if isinstance(asked, Upload):
        return "POST /v1/import"
    if isinstance(asked, Feed | Download):
        return address("GET", asked.path)
    assert isinstance(asked, Call)
    return address(asked.method, asked.path)


def document(url: str) -> dict[str, Any]:
    """Return the description of the API."""
    with open_http(url) as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_every_operation_of_the_api_is_reachable(server_url: str) -> None:
    """Each of the OpenAPI document is called by some method, and none calls anything else."""
    reached = {called(name, *sample) for name, sample in SAMPLES.items()}
    reached |= {called(*form) for form in OTHER_FORMS}
    offered = {
        f"{method.upper()} {path}"
        for path, methods in document(server_url)["paths"].items()
        for method in methods
    }
    assert offered - reached == ELSEWHERE
    assert reached <= offered


def test_both_clients_have_the_same_operations() -> None:
    """With the same signatures and the same words; what one returns the other one awaits."""
    assert len(METHODS) > 50
    for name, method in METHODS.items():
        ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert ours.__doc__ == theirs.__doc__
        assert inspect.cleandoc(ours.__doc__)
        is_list = isinstance(method, Listing)
        assert inspect.iscoroutinefunction(theirs) is not is_list, name
        assert not inspect.iscoroutinefunction(ours)
        returned = inspect.signature(ours).return_annotation
        assert returned.startswith("Iterator[") is is_list, name
        assert "Call" not in returned


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_methods(kind: str) -> None:
    """They are bound, are found by `dir`, and can be passed on."""
    with opened(kind, "http://127.0.0.1:9") as client:
        real = getattr(client, "client", client)
        for name in METHODS:
            assert name in dir(real)
            assert getattr(real, name).__self__ is real
            assert getattr(real, name).__name__ == name


def keywords(name: str) -> set[str]:
    """Return what a method can be told by name, besides the session."""
    return set(inspect.signature(getattr(Client, name)).parameters) - {"self", "name"}


FOR_ALL_GROUPS = {"limit", "switch"}
"""Actions on the whole session, which the server refuses with `groups`."""


@pytest.mark.parametrize("kind", sorted(Action.kinds))
def test_an_action_has_a_method_with_exactly_its_fields(kind: str) -> None:
    """A field that is added to an action is missing here until its method has it."""
    fields = set(Action.kinds[kind].model_fields) - {"kind"}
    if kind in FOR_ALL_GROUPS:
        fields -= {"groups"}
    assert keywords(kind) == fields | {"at", "dry_run", "key"}


@pytest.mark.parametrize("kind", sorted(FOR_ALL_GROUPS))
def test_such_an_action_is_refused_for_groups(kind: str, server_url: str, unique_name: str) -> None:
    """That is why its method has no keyword for them."""
    with open_http(server_url) as http:
        http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1})
        body = {"kind": kind, "groups": ["all"]}
        answer = http.post(f"/v1/sessions/{unique_name}/actions", json=body)
        assert answer.status_code == 422
        assert "leave `groups` out" in answer.text


BODIES = {
    "finish": "FinishRequest",
    "restart": "AttemptRequest",
    "fork": "ForkRequest",
    "take_back": "TakeBackRequest",
    "purge": "PurgeRequest",
    "prune": "PruneRequest",
    "create_token": "TokenRequest",
    "recommend": "Situation",
    "relabel": "LabelsRequest",
}
"""By method, the model of what it sends."""

UNSAID = {"page_token", "limit", "page_size", "format", "as", "view"}
"""What the client says by itself."""

RENAMED = {
    "kind": "kinds",
    "state": "states",
    "label": "labels",
    "session": "names",
    "checkpoint": "checkpoints",
}
"""A list by its plural."""

QUERIES = {
    "sessions": "/v1/sessions",
    "status": "/v1/sessions",
    "lr": "/v1/sessions/{name}/lr",
    "forecast": "/v1/sessions/{name}/forecast",
    "history": "/v1/sessions/{name}/history",
    "columns": "/v1/sessions/{name}/history",
    "events": "/v1/sessions/{name}/events",
    "explain": "/v1/sessions/{name}/explain",
    "ranks": "/v1/sessions/{name}/ranks",
    "range_test": "/v1/sessions/{name}/range-test",
    "merge": "/v1/sessions/{name}/merge",
    "realised": "/v1/sessions/{name}/export",
    "schedules": "/v1/schedules",
    "diff_templates": "/v1/templates/{name}/diff",
    "compare": "/v1/compare",
}
"""By method, the path whose query it fills."""


@pytest.mark.parametrize("method", BODIES)
def test_what_is_sent_can_be_said_in_full(method: str, server_url: str) -> None:
    """Each field of the body is a keyword."""
    schema = document(server_url)["components"]["schemas"][BODIES[method]]
    assert set(schema["properties"]) - keywords(method) - UNSAID <= {"name"}


@pytest.mark.parametrize("method", QUERIES)
def test_what_is_asked_can_be_said_in_full(method: str, server_url: str) -> None:
    """Each parameter of the query is a keyword, or several are one."""
    described = document(server_url)["paths"][QUERIES[method]]["get"]
    asked = {each["name"] for each in described["parameters"] if each["in"] == "query"}
    said = keywords(method)
    if method == "forecast":
        assert {"start", "count", "points"} <= said
    left = {each for each in asked - UNSAID if each not in said and RENAMED.get(each) not in said}
    assert left <= ({"name", "status"} if method in {"sessions", "status"} else set())
