"""Messages for people who make a mistake: what to write, in their own words, and where.

Each row is a mistake that was really made, with words that its message has. All messages follow the
same rules besides: no library's dialect, no doubled punctuation, a place for each mistake.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from pacesetter import Client, PacesetterError
from pacesetter._words import IN_PYTHON
from pacesetter.torch import RemoteLR
from pacesetter_service.api.advice import ADVICE
from pacesetter_service.api.problems import STATUSES
from serving import open_http

JSON = {"content-type": "application/json"}
PLATEAU = {"kind": "plateau", "metric": "loss"}

Call = tuple[str, str, Any]
"""A method, a path in which `{at}` is a session's, and a body: an object, or a text as it is."""


def new(**fields: Any) -> Call:
    """Return a valid description of a session, with these fields."""
    return "POST", "/v1/sessions", {"name": "messages-new", "base_lr": 0.1, **fields}


def act(**fields: Any) -> Call:
    """Order an action."""
    return "POST", "{at}/actions", fields


def sync(**fields: Any) -> Call:
    """Report, or ask for values."""
    return "POST", "{at}/sync", fields


def read(path: str) -> Call:
    """Read something."""
    return "GET", path, None


SAID: dict[str, tuple[Call, str, str]] = {
    # These once had a library's wording, and must read like this.
    "a name with a blank": (new(name="my run"), "/name", "letters (A to Z), digits, dots"),
    "a metric beside its step": (
        sync(reports=[{"step": 3, "loss": 0.5}]),
        "/reports/0/loss",
        'under `metrics`: {"step": 3, "metrics": {"loss": 0.5}}',
    ),
    "a schedule without a kind": (
        new(schedule={"total_steps": 5}),
        "/schedule/kind",
        "by its `kind`, such as 'constant', 'cosine'",
    ),
    "controllers as an object": (new(controllers=PLATEAU), "/controllers", "Write a list"),
    "half a document": (
        ("POST", "/v1/sessions", '{"name": "x",\n "base_lr": }'),
        "",
        "no JSON: Expecting value at line 2 column 13",
    ),
    "half a sync": (("POST", "{at}/sync", '{"step": }'), "", "no JSON: expected value at line 1"),
    "a label with an equals sign": (
        read("/v1/sessions?label=team=vision"),
        "label",
        "with a colon, such as team:vision",
    ),
    "a rate that is null": (act(kind="set", lr=None), "/lr", "Write a number, not null"),
    # Their siblings.
    "a name that is a number": (new(name=5), "/name", "letters (A to Z), digits"),
    "a group with a dot": (
        ("POST", "/v1/sessions", {"name": "x", "groups": {"a.b": {"base_lr": 1}}}),
        "/groups/a.b",
        "no dots",
    ),
    "a group that is a number": (
        ("POST", "/v1/sessions", {"name": "x", "groups": {"a": 0.1}}),
        "/groups/a",
        "Write a JSON object: { … }, not a number",
    ),
    "a label with a blank": (new(labels={"my team": "a"}), "/labels/my team", "no blanks"),
    "a label that is a number": (new(labels={"seed": 5}), "/labels/seed", "Write a text in quotes"),
    "labels as a text": (new(labels="team=vision"), "/labels", "Write a JSON object"),
    "a metric with a bracket": (
        sync(reports=[{"step": 0, "metrics": {"acc (top-1)": 1}}]),
        "/reports/0/metrics/acc (top-1)",
        "Name a metric by",
    ),
    "a metric that is null": (
        sync(reports=[{"step": 0, "metrics": {"loss": None}}]),
        "/reports/0/metrics/loss",
        '"nan", "inf" and "-inf"',
    ),
    "a report that is no list": (sync(reports={"step": 1}), "/reports", "in brackets: [{ … }]"),
    "a wish without a count": (sync(want={"start": 0}), "/want/count", "has to be given"),
    "a wish with another word": (
        sync(want={"start": 0, "count": 1, "cnt": 3}),
        "/want/cnt",
        "Did you mean 'count'?",
    ),
    "a sync with another word": (sync(steps=4), "/steps", "Did you mean 'step'?"),
    "a schedule in a list": (new(schedule=[]), "/schedule", 'such as {"kind": "constant"}'),
    "a kind that is misspelt": (
        new(schedule={"kind": "cosin"}),
        "/schedule/kind",
        "Did you mean 'cosine'?",
    ),
    "an ease without a kind": (
        new(schedule={"kind": "ramp", "end": 0.1, "steps": 5, "ease": {}}),
        "/schedule/ease/kind",
        "which ease this is",
    ),
    "a controller without its metric": (
        new(controllers=[{"kind": "plateau"}]),
        "/controllers/0/metric",
        "has to be given",
    ),
    "a mode that is misspelt": (
        new(controllers=[{**PLATEAU, "mode": "mni"}]),
        "/controllers/0/mode",
        "Write 'min' or 'max'. Did you mean 'min'?",
    ),
    "a field that is called as parts of an address are": (
        new(path="x"),
        "/path",
        "There is no such field",
    ),
    "a controller of a group that there is not": (
        new(controllers=[{**PLATEAU, "min_lr": {"head": 0.1}}]),
        "/controllers/0",
        "names the group head, which this session does not have",
    ),
    "a metric of more ranks than there are": (
        new(metrics={"loss": {"quorum": 3}}),
        "/metrics/loss/quorum",
        "set the session's `ranks` to the world size",
    ),
    "a rate by another name": (new(lr=0.1), "/lr", "Did you mean 'base_lr'?"),
    "a rate in quotes": (new(base_lr="0.1"), "/base_lr", "Write a number, not a text"),
    "a rate that is true": (new(base_lr=True), "/base_lr", "not true or false"),
    "a rate below 0": (new(base_lr=-1), "/base_lr", "0 or more"),
    "half a step": (new(total_steps=1.5), "/total_steps", "without a point in it"),
    "no body": (("POST", "/v1/sessions", ""), "", "Send a JSON object as the body"),
    "a list for a body": (("POST", "/v1/sessions", "[]"), "", "JSON object: { … }, not a list"),
    "a body of another coding": (("POST", "/v1/sessions", b"\xff{"), "", "in UTF-8"),
    "an action without a kind": (act(factor=0.5), "/kind", "which action this is"),
    "an action with another word": (
        act(kind="scale", factor=0.5, step=4),
        "/step",
        "Known here: factor, groups, kind, reason",
    ),
    "an action of a group as a text": (
        act(kind="scale", factor=0.5, groups="head"),
        "/groups",
        "Write a list",
    ),
    "a limit of none": (read("/v1/sessions?limit=0"), "limit", "1 or more"),
    "a limit that is a word": (read("/v1/schedules?limit=all"), "limit", "Write a whole number"),
    "a status that is misspelt": (
        read("/v1/sessions?status=activ"),
        "status",
        "Did you mean 'active'?",
    ),
    "a value without a step": (read("{at}/lr"), "step", "has to be given"),
    "an end that is misspelt": (
        ("POST", "{at}/finish", {"outcome": "done"}),
        "/outcome",
        "Write 'completed' or 'failed'",
    ),
    "a token for tomorrow": (
        ("POST", "/v1/tokens", {"name": "a", "role": "viewer", "expires_at": "tomorrow"}),
        "/expires_at",
        "such as 2026-01-31T12:00:00Z",
    ),
    "a template whose spec is wrong": (
        ("POST", "/v1/templates", {"name": "t", "spec": {"schedule": {"kind": "cosin"}}}),
        "/spec/schedule/kind",
        "Did you mean 'cosine'?",
    ),
    "a fork described by another word": (
        ("POST", "{at}/fork", {"name": "z", "step": 0, "description": {"schedul": "constant"}}),
        "/description/schedul",
        "Did you mean 'schedule'?",
    ),
}

TOLD: dict[str, tuple[Call, int, str]] = {
    # Mistakes that no single field is to blame for.
    "a large body": (("POST", "/v1/sessions", " " * 1_100_000), 413, "the 1,048,576 bytes"),
    "another method": (
        ("PUT", "{at}", {}),
        405,
        "takes GET, HEAD, PATCH, DELETE, OPTIONS and no other",
    ),
    "a record with no step": (read("{at}/history?start=5"), 422, "no step yet"),
    "a table of no step": (read("{at}/export?as=table"), 422, "none is sealed"),
    "a step far ahead": (sync(step=10**6), 422, "the first step that is not sealed is 0"),
    "nothing to take back": (("POST", "{at}/take-back", {}), 409, "so none can be taken back"),
    "a rank too many": (
        sync(rank=1, reports=[{"step": 0, "metrics": {"loss": 1}}]),
        422,
        "no step has been handed out yet",
    ),
    "a session that is not there": (read("/v1/sessions/none"), 404, "Create it with POST"),
    "a kind that there is not": (read("/v1/controllers/plateu"), 404, "Did you mean 'plateau'?"),
}

DIALECT = re.compile(
    r"Input should|Field required|Extra inputs|valid (?:tuple|dictionary|string|integer|number)"
    r"|should match pattern|\^\[|None:|\b0 to -1|pydantic|\bstr\b|\bdict\b"
)
"""Words of libraries, and of programs about themselves."""

DOUBLED = re.compile(r"[.!?;:,]\s*[.;:,!?](?!\d)|\s[.,;]|\(\)|  ")
"""Punctuation after punctuation, or after a blank."""


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="at", scope="module")
def _at(http: httpx.Client) -> str:
    """Return the address of a session of which nothing is sealed."""
    spec = {"name": "messages", "base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 100}}
    assert http.post("/v1/sessions", json=spec).status_code == 201
    return "/v1/sessions/messages"


def answer_to(http: httpx.Client, at: str, call: Call) -> httpx.Response:
    """Send a call, and return the answer."""
    method, path, body = call
    content = body if isinstance(body, str | bytes | None) else json.dumps(body)
    headers = JSON if method != "GET" else None
    return http.request(method, path.format(at=at), content=content, headers=headers)


def check_prose(text: str) -> None:
    """Check the rules of every message."""
    assert not DIALECT.search(text), text
    # Dots that stand for something, and code in a message, are not punctuation.
    prose = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\{ … \}|\[[^\]]*\]|…/\w+|, …|\.\.\.", "x", text)
    assert not DOUBLED.search(prose), text
    assert text[-1] in ".?!…", text


@pytest.mark.parametrize("mistake", SAID)
def test_a_mistake_is_told_in_the_words_of_who_made_it(
    http: httpx.Client, at: str, mistake: str
) -> None:
    """The message says what to write, and points at the place where to write it."""
    call, place, words = SAID[mistake]
    answer = answer_to(http, at, call)
    assert answer.status_code in (400, 422), answer.text
    problem = answer.json()
    found = {each.get("pointer", each.get("parameter")): each for each in problem["errors"]}
    assert words in found[place]["detail"]
    assert words in problem["detail"]
    check_prose(problem["detail"])


@pytest.mark.parametrize("refusal", TOLD)
def test_a_refusal_says_what_is_so_and_what_to_do(
    http: httpx.Client, at: str, refusal: str
) -> None:
    """No range runs backwards, no limit is left out, and no method."""
    call, status, words = TOLD[refusal]
    answer = answer_to(http, at, call)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    check_prose(answer.json()["detail"])


def test_every_advice_over_http_ends_like_a_sentence() -> None:
    """What is added to a refusal fits its text."""
    for error, advice in ADVICE.items():
        assert error in STATUSES
        check_prose(advice.format_map(_Anything()))


class _Anything(dict[str, Any]):
    """A value for every name."""

    def __missing__(self, key: str) -> str:
        return key


# In Python -------------------------------------------------------------------------------------


@pytest.fixture(name="client", scope="module")
def _client(server_url: str) -> Iterator[Client]:
    """Return a client of the shared service."""
    with Client(server_url) as client:
        yield client


@pytest.mark.parametrize(
    "rate",
    [np.float32(0.1), np.float64(0.1), np.int64(1), np.array(0.1), torch.tensor(0.1)],
    ids=repr,
)
def test_a_number_of_another_library_is_a_number(
    client: Client, unique_name: str, rate: Any
) -> None:
    """NumPy's scalars and tensors of one number are sent with their very value."""
    session = client.create_session(
        unique_name,
        base_lr=rate,
        schedule={"kind": "multistep", "milestones": np.array([3, 5]), "gamma": np.float32(0.5)},
        total_steps=np.int32(10),
    )
    assert session.lr(0) == float(rate)
    assert session.lr(4) == float(rate) * 0.5


def optimizer() -> torch.optim.SGD:
    """Return an optimizer of one parameter."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def scheduler() -> Any:
    """Return a scheduler of torch's."""
    return torch.optim.lr_scheduler.StepLR(optimizer(), 3)


IN_PYTHON_SAID: dict[str, tuple[Callable[[Client, str], object], str]] = {
    "a scheduler of torch's as a schedule": (
        lambda client, name: client.create_session(name, base_lr=0.1, schedule=scheduler()),
        "RemoteLR.from_torch(scheduler, name)",
    ),
    "an optimizer in place of a scheduler": (
        lambda _client, _name: RemoteLR.from_torch(optimizer()),  # type: ignore[arg-type]
        "is an optimizer, and from_torch takes a scheduler",
    ),
    "a scheduler for a session without a name": (
        lambda client, _name: RemoteLR.from_torch(scheduler(), client=client),
        "name it, as in from_torch(scheduler, 'run-1')",
    ),
    "a controller that stands alone": (
        lambda client, name: client.create_session(name, base_lr=0.1, controllers=PLATEAU),  # type: ignore[arg-type]
        "controllers= is a list",
    ),
    "a set among labels": (
        lambda client, name: client.create_session(name, base_lr=0.1, labels={"a": {"b"}}),  # type: ignore[dict-item]
        "labels.a is a builtins.set, which is no data",
    ),
    "a rate that is NaN": (
        lambda client, name: client.create_session(
            name, groups={"head": {"base_lr": np.float32("nan")}}
        ),
        "groups.head.base_lr is nan",
    ),
    "the API's own path in the address": (
        lambda _client, _name: Client("http://127.0.0.1:7070/v1"),
        "write http://127.0.0.1:7070, without it",
    ),
    "a session that is not there": (
        lambda client, _name: client.lr("none", 0),
        "Client.create_session(name, base_lr=..., schedule=...) creates it",
    ),
    "a name with a blank": (
        lambda client, _name: client.create_session("my run", base_lr=0.1),
        "/name: Write 1 to 128 letters",
    ),
    "neither a rate nor groups": (
        lambda client, name: client.create_session(name, total_steps=5),
        "Give `base_lr` for one learning rate",
    ),
}


@pytest.mark.parametrize("mistake", IN_PYTHON_SAID)
def test_a_mistake_in_python_is_told_in_python(
    client: Client, unique_name: str, mistake: str
) -> None:
    """The message speaks of arguments and methods, and never of HTTP."""
    make, words = IN_PYTHON_SAID[mistake]
    with pytest.raises((PacesetterError, TypeError, ValueError)) as caught:
        make(client, unique_name)
    said = str(caught.value)
    assert words in said
    assert not re.search(r"\b(GET|POST|PATCH|DELETE)\b|None:|JSON serializable", said)


def test_what_is_advised_in_python_is_there() -> None:
    """Each method that advice names is the client's, and takes the arguments that it shows."""
    for code, advice in IN_PYTHON.items():
        assert code in {known for _, known in STATUSES.values()}
        for name in re.findall(r"client\.(\w+)\(", advice):
            assert inspect.isfunction(getattr(Client, name))
