"""Past its plan's end a session keeps its last rate, says so, and can be extended."""

from typing import Any

import numpy as np
import pytest

from orders import Run, run
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.events import Noticed
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.schedules import Schedule

HF = {"kind": "hf.cosine", "num_warmup_steps": 10, "num_training_steps": 100}
TORCH = {"kind": "torch.CosineAnnealingLR", "T_max": 100}
RESTARTS = {"kind": "torch.CosineAnnealingWarmRestarts", "T_0": 50}

RISING: dict[str, dict[str, Any]] = {
    "hf.cosine": {"schedule": HF},
    "hf.cosine, pinned": {"schedule": HF, "total_steps": 100},
    "hf.cosine with a floor": {
        "schedule": {**HF, "kind": "hf.cosine_with_min_lr", "min_lr": 0.001}
    },
    "torch's cosine, pinned": {"schedule": TORCH, "total_steps": 100},
    "restarts, pinned at a restart": {"schedule": RESTARTS, "total_steps": 100},
    "cyclic, pinned": {
        "schedule": {"kind": "cyclic", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 25},
        "total_steps": 100,
    },
    "a wave under a warmup": {
        "schedule": {"kind": "warmup", "steps": 5, "schedule": TORCH},
        "total_steps": 100,
    },
}


def law(schedule: Any, start: int, end: int) -> list[float]:
    """Return the values of the pure law."""
    values = Schedule.parse(schedule).values(np.arange(start, end, dtype=np.float64), 0.1)
    return [float(each) for each in values]


def over(session: Run) -> list[int]:
    """Return the ends of plans that notices have named."""
    found = [event for event in session.events if isinstance(event, Noticed)]
    told = [each for each in found if each.code == "plan_over"]
    assert all(each.at > int(each.about) for each in told)
    return [int(each.about) for each in told]


@pytest.mark.parametrize("name", RISING)
def test_the_rate_does_not_rise_past_the_plan(name: str) -> None:
    """The law would rise again; a session follows it to the end, and keeps its last value."""
    spec = RISING[name]
    session = run(**spec)
    values = session.lr(0, 260)
    assert values[:100] == law(spec["schedule"], 0, 100)
    assert max(law(spec["schedule"], 100, 260)) > values[99]
    assert values[100:] == [values[100]] * 160
    assert values[100] <= values[99]
    assert over(session) == [100]


@pytest.mark.parametrize("window", [1, 7, 300])
def test_the_end_does_not_hang_on_the_windows(window: int) -> None:
    """For any windows, each step has one value, and the notice comes once."""
    session = run(**RISING["hf.cosine, pinned"])
    for end in range(window, 301, window):
        session.seal(end)
    assert session.lr(0, 150) == run(**RISING["hf.cosine, pinned"]).lr(0, 150)
    assert over(session) == [100]
    assert [notice.code for notice in session.session.control.notices] == ["plan_over"]


@pytest.mark.parametrize("name", RISING)
def test_the_law_is_followed_where_the_spec_says_so(name: str) -> None:
    """With after_end "law" a session has the library's values, however far it goes."""
    spec = {**RISING[name], "after_end": "law"}
    session = run(**spec)
    assert session.lr(0, 260) == law(spec["schedule"], 0, 260)
    assert over(session) == []


def test_a_law_without_an_end_is_followed_for_ever() -> None:
    """T_max is half a period, and `out_of_range` a declaration: neither is a length."""
    for schedule in (TORCH, RESTARTS, {"kind": "exponential", "gamma": 0.99}):
        session = run(schedule=schedule)
        assert session.lr(0, 300) == law(schedule, 0, 300)
        assert over(session) == []


def test_a_forecast_says_what_is_sealed() -> None:
    """This holds past the end too, before it is reached."""
    session = run(**RISING["hf.cosine"])
    session.seal(10)
    told = forecast(session.session, 10, 200)["lr"].tolist()
    assert told == session.lr(10, 210)


def test_groups_end_by_their_own_plans() -> None:
    """Each keeps its own last rate; the plan is over when the last one is."""
    longer = {**HF, "num_training_steps": 150}
    groups = {"a": {"base_lr": 0.1}, "b": {"base_lr": 0.1, "schedule": longer}}
    session = run(groups=groups, schedule=HF)
    assert session.lr(100, 200, "a.lr") == [0.0] * 100
    assert session.lr(0, 150, "b.lr") == law(longer, 0, 150)
    assert over(session) == [150]


@pytest.mark.parametrize("policy", ["rescale", "keep_then_tail"])
@pytest.mark.parametrize("name", ["hf.cosine", "torch's cosine, pinned"])
def test_a_retime_moves_the_end(name: str, policy: str) -> None:
    """The law ends at the new step, and is held there; the notice comes once."""
    session = run(**RISING[name])
    session.order(40, kind="retime", total_steps=200, policy=policy)
    values = session.lr(0, 320)
    assert min(values[1:199]) > 0
    assert values[195] < values[100] * 0.1
    assert values[200:] == [values[200]] * 120
    assert values[200] <= values[199]
    assert over(session) == [200]


def test_a_retime_of_a_plan_that_was_cut_off_reaches_the_laws_own_end() -> None:
    """A law longer than the session is fitted into the new length as a whole."""
    session = run(schedule={"kind": "cosine", "total_steps": 1000}, total_steps=100)
    session.order(50, kind="retime", total_steps=200)
    assert session.lr(200, 220) == [0.0] * 20
    assert min(session.lr(50, 200)) > 0


def test_past_the_end_a_replace_is_followed() -> None:
    """What is ordered there is a new plan; `retime` says that nothing is left."""
    session = run(**RISING["hf.cosine, pinned"])
    session.seal(110)
    with pytest.raises(ActionRefusedError, match="Use `replace`"):
        session.order(None, kind="retime", total_steps=300)
    session.order(None, kind="replace", schedule={**HF, "num_warmup_steps": 0})
    assert session.lr(110, 300) == [
        *law({**HF, "num_warmup_steps": 0}, 0, 100),
        *[0.0] * 90,
    ]
    assert over(session) == [100, 210]


def test_a_replace_within_the_plan_ends_with_it() -> None:
    """A law without an end is cut off where the session's plan is over."""
    session = run(**RISING["hf.cosine, pinned"])
    session.order(50, kind="replace", schedule=RESTARTS)
    values = session.lr(0, 200)
    assert values[50:100] == law(RESTARTS, 0, 50)
    assert values[100:] == [values[99]] * 100


def test_a_cooldown_past_the_end_takes_its_time() -> None:
    """An operator's order is no part of the plan that is over."""
    session = run(**RISING["torch's cosine, pinned"])
    session.order(90, kind="set", lr=0.05)
    session.order(120, kind="cooldown", steps=40, to=0.0, ease="linear")
    values = session.lr(0, 200)
    assert values[90:121] == [0.05] * 31
    assert values[140] == pytest.approx(0.025)
    assert values[160:] == [0.0] * 40


def test_a_hold_puts_the_end_off() -> None:
    """A clock that is stopped does not reach the end; after `release` it does."""
    session = run(**RISING["hf.cosine"])
    session.order(50, kind="hold")
    session.order(150, kind="release")
    values = session.lr(0, 300)
    assert values[50:150] == [values[50]] * 100
    assert values[150:199] == law(HF, 51, 100)
    assert values[199:] == [0.0] * 101
    assert over(session) == [199]
