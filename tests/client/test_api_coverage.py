"""Python covers the whole API: every operation, and every field of what operators send."""

import inspect
from collections.abc import Generator
from typing import Any

import pytest

from both import KINDS, opened
from pacesetter import AsyncClient, Client
from pacesetter._operation import Call, Download, Feed, Listing, Operation, Upload
from pacesetter._operations import Operations
from pacesetter._plan import Plan
from pacesetter._spec import Description
from pacesetter_service.api.access import route_of
from pacesetter_service.api.actions import OrderFields
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
    "rehearse_fork": (("s", "t"), {"step": 1}),
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
"""The methods that call each operation."""

ELSEWHERE = {
    # What a training calls, by `Client.session`.
    "POST /v1/sessions/{name}/sync",
    # Probes, and what a monitoring system reads.
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
}
"""Operations that no method calls."""

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
"""Other arguments, with which some methods call another address."""


def address(method: str, path: str) -> str:
    """Return an operation as its route has it."""
    route = route_of(method, path)
    assert route is not None, f"there is no {method} {path}"
    return f"{method} {route}"


def called(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the first operation that a method calls."""
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
    """Every operation of the OpenAPI document is called by a method, and methods call no others."""
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
    """Signatures and docstrings are the same; what one client returns, the other one awaits."""
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
    """They are bound, listed by `dir`, and can be passed on."""
    with opened(kind, "http://127.0.0.1:9") as client:
        real = getattr(client, "client", client)
        for name in METHODS:
            assert name in dir(real)
            assert getattr(real, name).__self__ is real
            assert getattr(real, name).__name__ == name


def keywords(name: str) -> set[str]:
    """Return the keywords of a method, besides the session."""
    found = set(inspect.signature(getattr(Client, name)).parameters) - {"self", "name"}
    return found - {"description"} | set(Description.__annotations__) if name == "create" else found


FOR_ALL_GROUPS = {"limit", "switch"}
"""Actions on the whole session, which the server refuses with `groups`."""


@pytest.mark.parametrize("kind", sorted(Action.kinds))
def test_an_action_has_a_method_with_exactly_its_fields(kind: str) -> None:
    """It has the fields of the action and those of every order, and no others."""
    fields = set(Action.kinds[kind].model_fields) | set(OrderFields.model_fields) - {"kind"}
    if kind in FOR_ALL_GROUPS:
        fields -= {"groups"}
    assert keywords(kind) == fields - {"kind"} | {"key"}
    assert keywords("order") == set(OrderFields.model_fields) | {"body", "key"}


@pytest.mark.parametrize("kind", sorted(FOR_ALL_GROUPS))
def test_such_an_action_is_refused_for_groups(kind: str, server_url: str, unique_name: str) -> None:
    """That is why its method has no such keyword."""
    with open_http(server_url) as http:
        http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1})
        body = {"kind": kind, "groups": ["all"]}
        answer = http.post(f"/v1/sessions/{unique_name}/actions", json=body)
        assert answer.status_code == 422
        assert "leave `groups` out" in answer.text


OF_THE_CLIENT = {
    "Pacesetter-Actor",
    "accept",
    "as",
    "format",
    "last-event-id",
    "page_token",
    "view",
}
"""Fields that a client fills in: who it is, which form it reads, and where it continues."""

SPELLED = {
    "Idempotency-Key": {"key"},
    "checkpoint": {"checkpoints"},
    "kind": {"kind", "kinds"},
    "label": {"label", "labels"},
    "number": {"order_id"},
    "session": {"session", "names"},
    "state": {"states"},
    "with": {"parameters"},
}
"""Keywords that differ from their field: the plural for a list, for example."""

AS_A_MAPPING = {"order", "publish_template", "preview", "preview_picture", "lint"}
"""Methods that take the body as it is sent."""

NOT_SAID: dict[tuple[str, str], str] = {
    ("sessions", "limit"): "pages are as large as they may be",
    ("status", "limit"): "pages are as large as they may be",
    ("events", "limit"): "pages are as large as they may be",
    ("prune", "limit"): "pages are as large as they may be",
    ("schedules", "limit"): "the catalogue comes whole",
    ("controllers", "limit"): "the catalogue comes whole",
    ("actions", "limit"): "the catalogue comes whole",
    ("status", "status"): "`states` says more",
    ("apply_plan", "request"): "the plan has it",
    ("picture", "readings"): "ranks are not drawn",
    ("picture", "count"): "`end` says it",
    ("export", "start"): "a record is whole; `realised` has a part",
    ("export", "end"): "a record is whole; `realised` has a part",
    ("export", "attempt"): "a record is whole; `realised` has a part",
    ("fork", "dry_run"): "`rehearse_fork` says it, and answers something else",
    ("rehearse_fork", "dry_run"): "it always is one",
    **{(kind, "groups"): "it is for the whole session" for kind in FOR_ALL_GROUPS},
    **{(kind, "kind"): "the method's name is the kind" for kind in Action.kinds},
}
"""Fields without a keyword, each with the reason."""

FORMS = [*((name, *sample) for name, sample in SAMPLES.items()), *OTHER_FORMS]


@pytest.fixture(name="described", scope="module")
def _described(server_url: str) -> dict[str, Any]:
    """Return the description of the API."""
    return document(server_url)


def members(described: dict[str, Any], schema: dict[str, Any], kind: str) -> set[str]:
    """Return the fields of a body; for actions, those of one kind."""
    if "$ref" in schema:
        model = schema["$ref"].rpartition("/")[2]
        return members(described, described["components"]["schemas"][model], kind)
    if "discriminator" in schema:
        return members(described, {"$ref": schema["discriminator"]["mapping"][kind]}, kind)
    fields = set(schema.get("properties", {}))
    return fields.union(*(members(described, each, kind) for each in schema.get("anyOf", ())))


def fields_of(described: dict[str, Any], call: str, method: str) -> set[str]:
    """Return what an operation accepts: its parameters, and the fields of its body."""
    verb, path = call.split(" ")
    operation = described["paths"][path][verb.lower()]
    said = {each["name"] for each in operation.get("parameters", ())}
    content = operation.get("requestBody", {}).get("content", {})
    if method not in AS_A_MAPPING:
        for body in content.values():
            said |= members(described, body["schema"], method)
    return said


def missing(described: dict[str, Any], form: tuple[str, Any, Any]) -> set[tuple[str, str]]:
    """Return the fields of its operation for which a method has no keyword."""
    method = form[0]
    fields = fields_of(described, called(*form), method) - OF_THE_CLIENT
    said = keywords(method) | set(inspect.signature(getattr(Client, method)).parameters)
    return {(method, each) for each in fields if not SPELLED.get(each, {each}) & said}


def test_all_that_an_operation_takes_is_a_keyword(described: dict[str, Any]) -> None:
    """Each parameter and each field of a body is a keyword of the methods that call it."""
    assert set.union(*(missing(described, form) for form in FORMS)) == set(NOT_SAID)
