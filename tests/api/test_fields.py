"""A refusal that concerns one field names it: by a pointer, or by its parameter."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api.access import route_of
from pacesetter_service.api.problems import STATUSES
from pacesetter_service.core.spec import NOT_YOURS
from serving import RunningService, open_http

ADMIN = "the-admins-own-token-that-nobody-guesses"

LINE = {"kind": "linear", "start_factor": 1.0, "end_factor": 0.1, "total_iters": 1000}
GROWING = {"kind": "expression", "value": "base * exp(t)"}
DEAR = "base * (" + " + ".join(f"exp(-t / {100 + each})" for each in range(16)) + ")"


def dear() -> dict[str, Any]:
    """Return a law of which no window is affordable."""
    law: dict[str, Any] = {"kind": "expression", "value": DEAR}
    for _ in range(20):
        law = {"kind": "splice", "first": law, "steps": 5, "second": "constant"}
    return law


@pytest.fixture(name="admin", scope="module")
def _admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a service of this module, with the admin's token."""
    database = tmp_path_factory.mktemp("fields") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        http.headers["authorization"] = f"Bearer {ADMIN}"
        yield http


@pytest.fixture(name="holder", scope="module")
def _holder(admin: httpx.Client) -> Iterator[Callable[..., httpx.Client]]:
    """Return a function that opens a client with a token of some kind."""
    opened = []

    def made(**token: Any) -> httpx.Client:
        body = {"name": "agent", "role": "operator", **token}
        http = open_http(str(admin.base_url))
        secret = admin.post("/v1/tokens", json=body).raise_for_status().json()["token"]
        http.headers["authorization"] = f"Bearer {secret}"
        opened.append(http)
        return http

    yield made
    for http in opened:
        http.close()


@pytest.fixture(name="at")
def _at(admin: httpx.Client, unique_name: str) -> str:
    """Return the address of a session of two groups, whose steps 0 to 9 are trained."""
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.1}}
    spec = {
        "name": unique_name,
        "groups": groups,
        "schedule": LINE,
        "total_steps": 1000,
        "limits": {"max_lr": 0.5},
        "batch_size": 8,
        "batch_scaling": "refuse",
        "labels": {f"label-{number}": "x" for number in range(30)},
    }
    admin.post("/v1/sessions", json=spec).raise_for_status()
    at = f"/v1/sessions/{unique_name}"
    call = {"attempt": 1, "want": {"start": 0, "count": 10}, "progress": {"step": 9}}
    admin.post(f"{at}/sync", json=call).raise_for_status()
    return at


def placed(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return the code of a refusal and the place of its one mistake, which must repeat `detail`."""
    problem = answer.json()
    assert answer.status_code >= 400, problem
    assert len(problem["errors"]) == 1, problem
    [mistake] = problem["errors"]
    said = mistake.pop("detail")
    assert said.rstrip(".") in problem["detail"]
    return problem["code"], mistake


REPLACED = {"kind": "replace", "schedule": {"kind": "cosine", "total_steps": {"tokens": 5}}}

ORDERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "too large a factor": ({"kind": "scale", "factor": 100}, "action_refused", "/factor"),
    "too large a rate": ({"kind": "set", "lr": 0.9}, "action_refused", "/lr"),
    "a rate that a ramp leads to": (
        {"kind": "set", "lr": 0.9, "over": 5},
        "action_refused",
        "/lr",
    ),
    "a floor above the rate": (
        {"kind": "cooldown", "steps": 10, "to": 0.4},
        "action_refused",
        "/to",
    ),
    "an end that has gone by": ({"kind": "cooldown", "until": 5}, "action_refused", "/until"),
    "epochs of an unknown length": (
        {"kind": "rewarm", "steps": {"epochs": 3}},
        "action_refused",
        "/steps",
    ),
    "samples that come to no step": (
        {"kind": "rewarm", "steps": {"samples": 1}},
        "action_refused",
        "/steps",
    ),
    "tokens within a law": (REPLACED, "action_refused", "/schedule/total_steps"),
    "an end that lies behind": (
        {"kind": "retime", "total_steps": 5},
        "action_refused",
        "/total_steps",
    ),
    "fewer steps to keep": (
        {"kind": "retime", "total_steps": 500, "policy": "keep_then_tail"},
        "action_refused",
        "/policy",
    ),
    "a law of other channels": (
        {
            "kind": "replace",
            "schedule": {"kind": "channels", "laws": {"lr": LINE, "momentum": LINE}},
        },
        "action_refused",
        "/schedule",
    ),
    "a law above the limits": (
        {"kind": "replace", "schedule": {"kind": "hold", "value": 0.9}},
        "action_refused",
        "/schedule",
    ),
    "a law that is too dear": (
        {"kind": "replace", "schedule": dear()},
        "too_costly",
        "/schedule",
    ),
    "a controller without stages": (
        {"kind": "switch", "controller": 3},
        "action_refused",
        "/controller",
    ),
    "no limits": ({"kind": "limit"}, "action_refused", "/lift"),
    "an unknown group": (
        {"kind": "hold", "groups": ["tail"]},
        "action_refused",
        "/groups",
    ),
    "a sealed step": ({"kind": "hold", "at": 3}, "step_out_of_range", "/at"),
    "another revision": ({"kind": "hold", "if_revision": 9}, "revision_changed", "/if_revision"),
}


@pytest.mark.parametrize(("order", "code", "pointer"), ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("dry_run", [False, True], ids=["given", "rehearsed"])
def test_a_refused_order_points_to_its_field(
    admin: httpx.Client, at: str, order: dict[str, Any], code: str, pointer: str, dry_run: bool
) -> None:
    """An order and its dry run are refused alike."""
    answer = admin.post(f"{at}/actions", json={**order, "dry_run": dry_run})
    assert placed(answer) == (code, {"pointer": pointer})


def test_an_end_that_no_law_says_is_asked_for(admin: httpx.Client, unique_name: str) -> None:
    """The pointer names the missing field `ends_at`."""
    law = {"kind": "exponential", "gamma": 0.99}
    spec = {"name": unique_name, "base_lr": 0.1, "schedule": law}
    admin.post("/v1/sessions", json=spec).raise_for_status()
    order = {"kind": "retime", "total_steps": 50}
    answer = admin.post(f"/v1/sessions/{unique_name}/actions", json=order)
    assert placed(answer) == ("action_refused", {"pointer": "/ends_at"})


def test_what_is_about_the_order_as_a_whole_points_nowhere(admin: httpx.Client, at: str) -> None:
    """With nothing held, a release is wrong whatever its fields are."""
    answer = admin.post(f"{at}/actions", json={"kind": "release"})
    assert answer.json()["code"] == "action_refused"
    assert "errors" not in answer.json()


CALLS: dict[str, tuple[str, dict[str, Any], str, dict[str, str]]] = {
    "an attempt that never was": (
        "/sync",
        {"attempt": 7},
        "stale_attempt",
        {"pointer": "/attempt"},
    ),
    "another database": ("/sync", {"epoch": "x"}, "another_epoch", {"pointer": "/epoch"}),
    "steps that are not sealed": (
        "/sync",
        {"attempt": 1, "held": 99},
        "horizon_receded",
        {"pointer": "/held"},
    ),
    "a window far ahead": (
        "/sync",
        {"want": {"start": 900, "count": 1}},
        "step_out_of_range",
        {"pointer": "/want/start"},
    ),
    "a step far ahead": ("/sync", {"step": 900}, "step_out_of_range", {"pointer": "/step"}),
    "a report on a step to come": (
        "/sync",
        {"reports": [{"step": 500, "metrics": {"loss": 1.0}}]},
        "step_out_of_range",
        {"pointer": "/reports"},
    ),
    "a rank too many": (
        "/sync",
        {"rank": 5, "reports": [{"step": 5, "metrics": {"loss": 1.0}}]},
        "step_out_of_range",
        {"pointer": "/rank"},
    ),
    "what cannot have been used": (
        "/sync",
        {"applied": {"step": 500, "values": {"head.lr": 0.1}}},
        "step_out_of_range",
        {"pointer": "/applied/step"},
    ),
    "names of metrics without end": (
        "/sync",
        {
            "reports": [
                {"step": step, "metrics": {f"loss at {step} {n}": 1.0 for n in range(250)}}
                for step in range(5)
            ]
        },
        "too_many_metrics",
        {"pointer": "/reports"},
    ),
    "another batch size": (
        "/sync",
        {"attempt": 1, "batch_size": 16},
        "batch_refused",
        {"pointer": "/batch_size"},
    ),
    "a restart at a step to come": (
        "/attempts",
        {"step": 900, "key": "a"},
        "step_out_of_range",
        {"pointer": "/step"},
    ),
    "a restart with another batch size": (
        "/attempts",
        {"step": 5, "key": "a", "batch_size": 16},
        "batch_refused",
        {"pointer": "/batch_size"},
    ),
    "an end at a step to come": (
        "/finish",
        {"step": 900},
        "step_out_of_range",
        {"pointer": "/step"},
    ),
    "an end of another attempt": (
        "/finish",
        {"attempt": 7},
        "stale_attempt",
        {"pointer": "/attempt"},
    ),
    "a fork of a step to come": (
        "/fork",
        {"name": "fork-of-nothing", "step": 900},
        "step_out_of_range",
        {"pointer": "/step"},
    ),
    "a fork that is too dear": (
        "/fork",
        {"name": "dear-fork", "step": 5, "description": {"schedule": dear()}},
        "too_costly",
        {"pointer": "/description/schedule"},
    ),
    "a plan by nothing": (
        "/plan",
        {"metric": "loss"},
        "validation_failed",
        {"pointer": "/metric"},
    ),
    "a plan that is over": (
        "/plan",
        {"metric": "loss", "total_steps": 5},
        "step_out_of_range",
        {"pointer": "/total_steps"},
    ),
    "a plan of epochs of an unknown length": (
        "/plan",
        {"metric": "loss", "goal": "budget", "steps": {"epochs": 1}},
        "validation_failed",
        {"pointer": "/steps"},
    ),
}


@pytest.mark.parametrize(("path", "body", "code", "place"), CALLS.values(), ids=CALLS)
def test_a_refused_call_says_where_it_is_wrong(
    admin: httpx.Client, at: str, path: str, body: dict[str, Any], code: str, place: dict[str, str]
) -> None:
    """The pointer uses the fields that were sent, not those derived from them."""
    assert placed(admin.post(at + path, json=body)) == (code, place)


def test_a_key_stands_in_a_header_or_in_a_body(admin: httpx.Client, at: str) -> None:
    """An order's in Idempotency-Key, and a restart's in its body."""
    key = {"idempotency-key": "mine"}
    admin.post(f"{at}/actions", json={"kind": "hold"}, headers=key).raise_for_status()
    answer = admin.post(f"{at}/actions", json={"kind": "scale", "factor": 0.5}, headers=key)
    assert placed(answer) == ("action_refused", {"parameter": "Idempotency-Key"})
    for name in ("one", "two"):
        admin.post(f"{at}/attempts", json={"step": 5, "key": name}).raise_for_status()
    answer = admin.post(f"{at}/attempts", json={"step": 5, "key": "one"})
    assert placed(answer) == ("superseded_attempt", {"pointer": "/key"})


def test_ranks_of_one_restart_say_the_same(admin: httpx.Client, at: str) -> None:
    """Another step, or another batch size, under the same key is pointed to."""
    begun = {"step": 5, "key": "all", "batch_size": 8}
    admin.post(f"{at}/attempts", json=begun).raise_for_status()
    for field, value in (("step", 4), ("batch_size", 16)):
        answer = admin.post(f"{at}/attempts", json={**begun, field: value})
        assert placed(answer) == ("attempt_refused", {"pointer": f"/{field}"})


def test_a_name_that_is_taken_is_pointed_to(admin: httpx.Client, at: str) -> None:
    """This holds for a new session, for a fork, and for an import, which names it in its query."""
    name = at.rpartition("/")[2]
    other = f"{name}-other"
    admin.post("/v1/sessions", json={"name": other, "base_lr": 0.3}).raise_for_status()
    for path, body in (
        ("/v1/sessions", {"name": other, "base_lr": 0.1}),
        (f"{at}/fork", {"name": other, "step": 5}),
    ):
        assert placed(admin.post(path, json=body)) == ("session_exists", {"pointer": "/name"})
    record = admin.get(f"{at}/export").content
    lines = {"content-type": "application/x-ndjson"}
    answer = admin.post(f"/v1/import?name={other}", content=record, headers=lines)
    assert placed(answer) == ("name_taken", {"parameter": "name"})


def test_a_law_is_pointed_to_where_it_stands(admin: httpx.Client, unique_name: str) -> None:
    """It may be the session's, a group's, a whole template's, or one that is not trainable."""
    new = {"name": unique_name, "base_lr": 0.1}
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.1, "schedule": dear()}}
    template = {"name": unique_name, "spec": {"base_lr": 0.1, "schedule": dear()}, "parameters": {}}
    admin.post("/v1/templates", json=template).raise_for_status()
    of_template = {"name": unique_name, "template": f"{unique_name}@1", "with": {}}
    preview, head = "/v1/schedules/preview", {"head": {"base_lr": 0.1, "schedule": GROWING}}
    for path, body, code, pointer in (
        ("/v1/sessions", {**new, "schedule": dear()}, "too_costly", "/schedule"),
        (preview, {**new, "schedule": dear()}, "too_costly", "/schedule"),
        ("/v1/schedules/lint", {**new, "schedule": dear()}, "too_costly", "/schedule"),
        (
            "/v1/sessions",
            {"name": unique_name, "groups": groups},
            "too_costly",
            "/groups/body/schedule",
        ),
        ("/v1/sessions", of_template, "too_costly", "/template"),
        (preview, {**new, "schedule": GROWING}, "schedule_not_finite", "/schedule"),
        (preview, {"groups": head}, "schedule_not_finite", "/groups/head/schedule"),
        (
            "/v1/sessions",
            {**of_template, "template": "nothing@1"},
            "template_not_found",
            "/template",
        ),
    ):
        assert placed(admin.post(path, json=body)) == (code, {"pointer": pointer}), path


@pytest.mark.parametrize("path", ["sessions", "schedules/preview", "schedules/lint"])
@pytest.mark.parametrize("field", NOT_YOURS)
def test_what_only_the_service_writes_is_refused_alike(
    admin: httpx.Client, unique_name: str, path: str, field: str
) -> None:
    """Every call that takes a spec refuses it; null is accepted, as in a spec that was read."""
    spec = {"name": unique_name, "base_lr": 0.1, field: {"session": "other", "step": 1}}
    code, place = placed(admin.post(f"/v1/{path}", json=spec))
    assert (code, place["pointer"]) == ("validation_failed", f"/{field}")
    assert admin.post(f"/v1/{path}", json={**spec, field: None}).status_code < 300


def test_what_a_token_does_not_allow_is_pointed_to(
    holder: Callable[..., httpx.Client], at: str
) -> None:
    """This holds for a name outside its scope, another actor, and a kind outside its bounds."""
    agent = holder(scope=["team-*"])
    answer = agent.post("/v1/sessions", json={"name": "other", "base_lr": 0.1})
    assert placed(answer) == ("out_of_scope", {"pointer": "/name"})
    answer = holder().post(f"{at}/actions", json={}, headers={"pacesetter-actor": "bob"})
    assert placed(answer) == ("actor_refused", {"parameter": "Pacesetter-Actor"})
    bounded = holder(bounds={"factor_range": [0.5, 2.0]})
    answer = bounded.post(f"{at}/actions", json={"kind": "scale", "factor": 3})
    assert placed(answer) == ("beyond_bounds", {"pointer": "/factor"})
    answer = bounded.post(f"{at}/actions", json={"kind": "revert"})
    assert placed(answer) == ("not_allowed", {"pointer": "/kind"})


def test_labels_without_end_are_pointed_to(admin: httpx.Client, at: str) -> None:
    """For a change of labels, the pointer names `labels`."""
    labels = {f"more-{number}": "x" for number in range(10)}
    answer = admin.patch(at, json={"labels": labels})
    assert placed(answer) == ("action_refused", {"pointer": "/labels"})


def test_a_page_token_of_a_body_is_pointed_to(admin: httpx.Client) -> None:
    """In a query it is a parameter."""
    answer = admin.post("/v1/prune", json={"older_than": 1, "page_token": "?"})
    assert placed(answer) == ("validation_failed", {"pointer": "/page_token"})
    answer = admin.get("/v1/sessions", params={"page_token": "?"})
    assert placed(answer) == ("validation_failed", {"parameter": "page_token"})


ELSEWHERE = {
    "plan_stale": "tests/api/test_plan.py",
    "too_many_reports": "tests/core/test_session_laws.py",
}
"""Codes whose field is tested in another file, where such a refusal is made."""

OF_NO_FIELD = {
    # What the path names is missing, or in another state.
    *("session_not_found", "session_purged", "session_not_archived", "session_has_forks"),
    *("session_archived", "session_finished", "unknown_kind", "order_not_found"),
    *("token_not_found", "authentication_off", "nothing_to_take_back"),
    # A record consists of lines, and the message names one.
    "import_refused",
    # The caller, or the service.
    *("unauthenticated", "forbidden", "awaiting_measurement", "contended", "overloaded", "busy"),
    *("too_many_readers", "stalled", "storage_unavailable", "storage_full", "storage_replaced"),
}
"""Codes of refusals that no change of a field would prevent."""

TESTED = {
    *(code for _, code, _ in ORDERS.values()),
    *(code for _, _, code, _ in CALLS.values()),
    *("superseded_attempt", "attempt_refused", "session_exists", "name_taken", "too_costly"),
    *("schedule_not_finite", "template_not_found", "out_of_scope", "actor_refused"),
    *("beyond_bounds", "not_allowed"),
}


def test_every_code_is_of_a_field_or_of_none() -> None:
    """A new code must declare here whether a field of a body can be to blame for it."""
    codes = {code for _, code in STATUSES.values()}
    assert not (TESTED | set(ELSEWHERE)) & OF_NO_FIELD
    assert TESTED - {"validation_failed"} | set(ELSEWHERE) | OF_NO_FIELD == codes


def test_each_pointer_leads_into_the_body(admin: httpx.Client) -> None:
    """The first name of each is a field of the model that the description has for the body."""
    document = admin.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    rows = [(path, place["pointer"]) for path, _, _, place in CALLS.values()]
    for path, pointer in rows:
        route = route_of("POST", f"/v1/sessions/x{path}")
        content = document["paths"][route]["post"]["requestBody"]["content"]
        model = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert pointer.split("/")[1] in schemas[model]["properties"]
    for body, _, pointer in ORDERS.values():
        model = schemas["Action"]["discriminator"]["mapping"][body["kind"]].rpartition("/")[2]
        assert pointer.split("/")[1] in schemas[model]["properties"]
