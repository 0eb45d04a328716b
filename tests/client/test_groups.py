"""Which session group drives which param group."""

from typing import Any

import pytest
import torch

from pacesetter import GroupError
from pacesetter._groups import groups_of, match, writers


def _groups(*descriptions: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"lr": 0.1, **description} for description in descriptions]


def test_a_session_without_groups_drives_all():
    """It writes one learning rate to every param group."""
    assert match(_groups({}, {}), (), None) == ("", "")


def test_groups_match_by_order():
    """Without names the first group is the first param group."""
    assert match(_groups({}, {}), ("body", "head"), None) == ("body", "head")


def test_groups_match_by_name():
    """Names in the param groups take precedence over order."""
    named = _groups({"name": "head"}, {"name": "body"})
    assert match(named, ("body", "head"), None) == ("head", "body")


def test_groups_may_be_chosen():
    """Several param groups may follow one session group, as with weight decay and without."""
    assert match(_groups({}, {}, {}), ("body", "head"), ["body", "body", "head"]) == (
        "body",
        "body",
        "head",
    )


@pytest.mark.parametrize(
    ("param_groups", "session", "wished", "advice"),
    [
        pytest.param(
            _groups({"lr": 0.1}, {"lr": 0.2}), (), None, "groups_of", id="rates that differ"
        ),
        pytest.param(_groups({}), (), ["body"], "leave out groups", id="nothing to choose from"),
        pytest.param(_groups({}), ("a", "b"), None, r"pass groups=\[", id="too few param groups"),
        pytest.param(_groups({}, {}), ("a",), None, r"pass groups=\[", id="too many param groups"),
        pytest.param(_groups({"name": "x"}), ("a",), None, "rename them", id="another name"),
        pytest.param(
            _groups({"name": "a"}, {"name": "a"}), ("a", "b"), None, "rename", id="a name twice"
        ),
        pytest.param(_groups({}), ("a",), ["b"], "choose from a", id="an unknown choice"),
        pytest.param(_groups({}, {}), ("a",), ["a"], "that many names", id="too few choices"),
        pytest.param(_groups({}), ("a",), "a", "that many names", id="a string for a list"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(
    param_groups: list[dict[str, Any]], session: tuple[str, ...], wished: Any, advice: str
):
    """A guess would train with wrong learning rates; the message says what to write instead."""
    with pytest.raises(GroupError, match=advice):
        match(param_groups, session, wished)


def test_an_optimizers_groups_describe_a_session():
    """`groups_of` returns what `create_session(groups=...)` takes, in order."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": weights[0], "lr": 0.1}, {"params": weights[1], "lr": torch.tensor(0.5)}]
    )
    assert groups_of(optimizer) == {"group0": {"base_lr": 0.1}, "group1": {"base_lr": 0.5}}
    for group, name in zip(optimizer.param_groups, ("body", "-the head.0"), strict=True):
        group["name"] = name
    assert list(groups_of(optimizer)) == ["body", "the_head_0"]
    assert match(optimizer.param_groups, ["the_head_0", "body"], None) == ("body", "the_head_0")


def test_betas_in_tensors_are_written_in_place():
    """A captured Adam keeps its tensors, for the rate and for the first beta."""
    rate, beta = torch.tensor(0.0), torch.tensor(0.0)
    group: dict[str, Any] = {"lr": rate, "betas": (beta, torch.tensor(0.999))}
    columns = {"head.lr": [0.5], "head.momentum": [0.25]}
    for put, column in writers(group, "head", columns):
        put(group, column[0])
    assert group["lr"] is rate
    assert group["betas"][0] is beta
    assert (float(rate), float(beta)) == (0.5, 0.25)
