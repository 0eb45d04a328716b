"""Laws that hold for every schedule, named or nested."""

import functools
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.model import MAX_STEP, jsonable
from pacesetter_service.core.schedules import Schedule
from strategies import rates, schedules

described = functools.cache(catalogue.describe_schedule)
"""The catalogue's entry of a kind; its parameters are a schema, which takes a while to make."""


def steps(start: int, count: int) -> Any:
    """Return consecutive local times."""
    return np.arange(start, start + count, dtype=np.float64)


@given(schedules, rates, st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_blocks_give_the_bits_of_the_whole(
    spec: dict[str, Any], base: float, lengths: list[int]
) -> None:
    """Evaluating in blocks, whatever their lengths, equals evaluating whole."""
    schedule = Schedule.parse(spec)
    edges = np.cumsum([0, *lengths])
    blocks = [
        schedule.values(steps(int(start), length), base)
        for start, length in zip(edges, lengths, strict=False)
    ]
    whole = schedule.values(steps(0, int(edges[-1])), base)
    assert_array_equal(np.concatenate(blocks), whole)


@given(schedules, rates, st.integers(0, 500))
def test_a_single_step_gives_the_bits_of_the_block(
    spec: dict[str, Any], base: float, step: int
) -> None:
    """The value at a step does not depend on which steps are evaluated with it."""
    schedule = Schedule.parse(spec)
    block = schedule.values(steps(0, 501), base)
    assert schedule.values(steps(step, 1), base)[0] == block[step]


@given(schedules, rates)
def test_no_value_is_negative_or_infinite(spec: dict[str, Any], base: float) -> None:
    """Whatever the composition of well-formed schedules, values are learning rates."""
    values = Schedule.parse(spec).values(steps(0, 2000), base)
    assert np.isfinite(values).all()
    assert (values >= 0).all()


@given(schedules)
def test_a_schedule_survives_its_json(spec: dict[str, Any]) -> None:
    """Parsing what a schedule is written as gives an equal schedule."""
    schedule = Schedule.parse(spec)
    assert Schedule.parse(json.loads(json.dumps(jsonable(schedule)))) == schedule


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_every_kind_is_described(kind: str) -> None:
    """The catalogue gives each kind a sentence, a law, a source and an example that works."""
    entry = described(kind)
    assert entry["description"].endswith((".", "="))
    assert entry["formula"]
    assert entry["source"]
    values = Schedule.parse(entry["example"]).values(steps(0, 50), 0.1)
    assert values.shape == (50,)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_a_deep_window_is_evaluated_as_a_near_one(kind: str) -> None:
    """The last possible steps are evaluated like the first."""
    schedule = Schedule.parse(described(kind)["example"])
    values = schedule.values(steps(MAX_STEP - 100, 100), 0.1)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", catalogue.schedules())
@pytest.mark.parametrize("start", [0, 997, 10**9])
def test_blocks_of_any_kind_are_parts_of_the_whole(kind: str, start: int) -> None:
    """The example of each kind has the same bits in blocks, single steps among them, as whole."""
    for law in Schedule.parse(described(kind)["example"]).channels().values():
        whole = law.values(steps(start, 1100), 0.1)
        edges = [0, 1, 2, 3, 64, 65, 500, 1099, 1100]
        blocks = [law.values(steps(start + a, b - a), 0.1) for a, b in pairwise(edges)]
        assert_array_equal(np.concatenate(blocks), whole)


FAR = (10**7, 10**7 + 1, 10**8, MAX_STEP)
"""Steps long after the end of any example."""


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_what_holds_stays_as_it_is(kind: str) -> None:
    """Where an example says that its end is held, each channel has one value far past it."""
    for law in Schedule.parse(described(kind)["example"]).channels().values():
        if law.range_policy() == "hold":
            [value] = set(law.values(np.array(FAR, dtype=np.float64), 0.1).tolist())
            assert 0 <= value < np.inf


@given(schedules, rates)
def test_what_says_that_it_holds_does(spec: dict[str, Any], base: float) -> None:
    """Whatever the composition, `hold` is a promise that the values keep."""
    schedule = Schedule.parse(spec)
    if schedule.range_policy() == "hold":
        assert len(set(schedule.values(np.array(FAR, dtype=np.float64), base).tolist())) == 1


RISING = {
    "cyclic": "for ever",
    "deepspeed.LRRangeTest": "for ever",
    "fairseq.triangular": "for ever",
    "hf.cosine": "the value rises again",
    "hf.cosine_warmup_with_min_lr": "the value rises again",
    "hf.cosine_with_min_lr": "the value rises again",
    "ignite.ConcatScheduler": "the last one has no end",
    "ignite.CosineAnnealingScheduler": "again and again",
    "ignite.LinearCyclicalScheduler": "again and again",
    "mmengine.CosineAnnealingLR": "the rate rises again",
    "prolong": "has some of its way left again",
    "torch.CosineAnnealingLR": "rises again",
    "torch.CyclicLR": "for ever",
    "torch.SequentialLR": "rises again",
    "triangle_wave": "for ever",
    "within": "the way back and forth again",
    "wsd_s": "from the base again",
}
"""The kinds whose examples still rise late in a long training, and how their texts say so."""


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_no_kind_rises_again_without_saying_so(kind: str) -> None:
    """After ten million steps no example is below 0, and one that rises says so in its text."""
    entry = described(kind)
    for law in Schedule.parse(entry["example"]).channels().values():
        values = law.values(steps(10**7, 50_000), 0.1)
        assert (values >= 0).all()
        if (np.diff(values) > 0).any():
            assert RISING[kind] in " ".join(entry["description"].split())


LAWS_WITHIN: tuple[dict[str, Any], ...] = (
    {"kind": "exponential", "gamma": 0.99},
    {"kind": "warmup_cosine", "warmup_steps": 10, "total_steps": 100},
    {"kind": "hf.cosine", "num_warmup_steps": 5, "num_training_steps": 60},
    {"kind": "knots", "points": [{"at": 3, "level": 1.0}, {"at": 40, "level": "base"}]},
    {"kind": "table", "levels": [0.5, 0.25, 1.0, 0.125]},
    {"kind": "noise", "schedule": "constant", "seed": 7},
)


@given(
    st.sampled_from(LAWS_WITHIN),
    st.one_of(st.integers(1, 200), st.floats(0.5, 200)),
    st.lists(st.floats(-1000, 1000), min_size=1, max_size=20),
)
def test_within_changes_nothing_in_its_range(
    law: dict[str, Any], length: float, times: list[float]
) -> None:
    """In its range it has the child's bits, and outside of it what its policy defines."""
    child = Schedule.parse(law)

    def outside(policy: str) -> Any:
        spec = {"kind": "within", "schedule": law, "steps": length, "out_of_range": policy}
        return Schedule.parse(spec).values(t, 0.1)

    t = np.array([*times, 0.0, float(length)])
    inside = (t >= 0) & (t <= length)
    as_it_stands = child.values(t, 0.1)
    held = child.values(np.clip(t, 0, length), 0.1)
    for policy in ("hold", "bounce", "extrapolate", "error"):
        assert_array_equal(outside(policy)[inside], as_it_stands[inside])
    assert_array_equal(outside("hold"), held)
    assert_array_equal(outside("extrapolate"), as_it_stands)
    assert_array_equal(outside("error"), np.where(inside, held, np.nan))


@given(st.sampled_from(LAWS_WITHIN), st.integers(1, 200), st.integers(-5, 5))
def test_within_bounces_at_both_ends(law: dict[str, Any], length: int, turn: int) -> None:
    """The way back is the way there, mirrored, to the bit, and again after every two lengths."""
    spec = {"kind": "within", "schedule": law, "steps": length, "out_of_range": "bounce"}
    there = Schedule.parse(law).values(steps(0, length + 1), 0.1)
    start = 2 * length * turn
    values = Schedule.parse(spec).values(steps(start, 2 * length + 1), 0.1)
    assert_array_equal(values[: length + 1], there)
    assert_array_equal(values[length:], there[::-1])


places = st.lists(st.integers(0, 300), min_size=2, max_size=6, unique=True).map(sorted)


@given(places, st.data(), st.sampled_from(["linear", "cosine", "constant"]), rates)
def test_knots_keep_their_policy(
    at: list[int], data: st.DataObject, ease: str, base: float
) -> None:
    """Inside, all policies give the same bits; outside, each follows its definition."""
    levels = st.one_of(st.just("base"), st.floats(0, 1))
    points = [{"at": place, "level": data.draw(levels)} for place in at]
    first, last = at[0], at[-1]
    t = steps(first - 400, last - first + 800)
    inside = (t >= first) & (t <= last)

    def outside(policy: str) -> Any:
        spec = {"kind": "knots", "points": points, "ease": ease, "out_of_range": policy}
        return Schedule.parse(spec).values(t, base)

    held = outside("hold")
    ends = [base if points[i]["level"] == "base" else points[i]["level"] for i in (0, -1)]
    assert (held[t < first] == ends[0]).all()
    assert (held[t >= last] == ends[1]).all()
    for policy in ("bounce", "extrapolate", "error"):
        assert_array_equal(outside(policy)[inside], held[inside])
    assert np.isnan(outside("error")[~inside]).all()
    length = last - first
    distance = np.mod(t - first, 2 * length)
    mirrored = (first + np.minimum(distance, 2 * length - distance)).astype(int) - int(t[0])
    assert_array_equal(outside("bounce"), held[mirrored])


@given(places, rates)
def test_extrapolated_knots_go_on_along_their_first_and_last_piece(
    at: list[int], base: float
) -> None:
    """Outside, the formula is that of a ramp through the two outermost knots."""
    points = [{"at": place, "level": float(index % 3)} for index, place in enumerate(at)]
    t = steps(at[0] - 50, at[-1] - at[0] + 100)
    knots = {"kind": "knots", "points": points, "out_of_range": "extrapolate"}
    values = Schedule.parse(knots).values(t, base)
    for (one, other), beyond in ((points[:2], t < at[0]), (points[-2:], t > at[-1])):
        ramp = {
            "kind": "ramp",
            "start": one["level"],
            "end": other["level"],
            "steps": other["at"] - one["at"],
            "out_of_range": "extrapolate",
        }
        assert_array_equal(values[beyond], Schedule.parse(ramp).values(t[beyond] - one["at"], base))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_table_keeps_its_policy(levels: list[float]) -> None:
    """Before the first level and after the last: the nearer one, the way back, or nothing."""
    t = steps(-100, 200)
    inside = (t >= 0) & (t < len(levels))

    def outside(policy: str) -> Any:
        return Schedule.parse({"kind": "table", "levels": levels, "out_of_range": policy}).values(
            t, 1.0
        )

    there_and_back = [*levels, *levels[-2:0:-1]]
    nearest = np.clip(t, 0, len(levels) - 1).astype(int)
    assert_array_equal(outside("hold"), np.array(levels)[nearest])
    assert_array_equal(
        outside("bounce"), [there_and_back[int(step) % len(there_and_back)] for step in t]
    )
    assert_array_equal(outside("error"), np.where(inside, outside("hold"), np.nan))


@given(
    st.integers(1, 100),
    st.floats(0, 0.9),
    st.sampled_from(["linear", "cosine", {"kind": "poly", "power": 2.0}]),
)
def test_a_prefix_warmup_ends_where_its_schedule_begins(
    length: int, start_factor: float, ease: Any
) -> None:
    """The first value is the start factor's, those after the warmup are the schedule's own."""
    body = {"kind": "cosine", "total_steps": 50, "min_lr": 0.001}
    warm = Schedule.parse(
        {
            "kind": "warmup",
            "steps": length,
            "start_factor": start_factor,
            "ease": ease,
            "schedule": body,
        }
    )
    values = warm.values(steps(0, length + 60), 0.1)
    assert_allclose(values[0], start_factor * 0.1, rtol=1e-12, atol=1e-15)
    assert (np.diff(values[: length + 1]) >= -1e-15).all()
    assert_array_equal(values[length:], Schedule.parse(body).values(steps(0, 60), 0.1))


def warmed(mode: str) -> Any:
    """Evaluate a five-step warmup in front of a decay by halves."""
    spec = {
        "kind": "warmup",
        "steps": 4,
        "mode": mode,
        "schedule": {"kind": "exponential", "gamma": 0.5},
    }
    return Schedule.parse(spec).values(steps(0, 6), 1.0)


def test_warmup_modes_are_the_documented_ones() -> None:
    """Each mode multiplies as its table says, and hands over to the documented clock."""
    assert_array_equal(warmed("prefix"), [0, 0.25, 0.5, 0.75, 1, 0.5])
    assert_array_equal(warmed("overlay"), [0, 0.25, 0.5, 0.75, 1 / 16, 1 / 32])
    assert_array_equal(warmed("multiply"), [0, 0.125, 0.125, 0.09375, 1 / 16, 1 / 32])
    assert_array_equal(warmed("replace"), [0, 1 / 64, 2 / 64, 3 / 64, 1 / 16, 1 / 32])


def test_momentum_waits_for_the_warmup_to_end() -> None:
    """A prefix warmup delays the other channels and leaves their values alone."""
    body = {"kind": "one_cycle", "total_steps": 20, "cycle_momentum": True}
    channels = Schedule.parse({"kind": "warmup", "steps": 5, "schedule": body}).channels()
    plain = Schedule.parse(body).channels()["momentum"].values(steps(0, 20), 0.9)
    assert_array_equal(channels["momentum"].values(steps(0, 5), 0.9), [plain[0]] * 5)
    assert_array_equal(channels["momentum"].values(steps(5, 20), 0.9), plain)


def test_the_parts_of_a_sequence_hand_over_at_their_boundaries() -> None:
    """A boundary belongs to the next part, whose own clock starts there."""
    sequence = {
        "kind": "sequence",
        "parts": [
            {"schedule": {"kind": "hold", "value": 1.0}, "steps": 2},
            {"schedule": {"kind": "ramp", "start": 5.0, "end": 3.0, "steps": 2}, "steps": 2},
            {"schedule": "constant"},
        ],
    }
    values = Schedule.parse(sequence).values(steps(0, 6), 0.1)
    assert values.tolist() == [1.0, 1.0, 5.0, 4.0, 0.1, 0.1]


REFUSED = {
    "a misspelt kind": ({"kind": "cosin"}, "kind", "Did you mean 'cosine'?"),
    "a misspelt parameter": (
        {"kind": "cosine", "total_step": 9},
        "total_step",
        "Did you mean 'total_steps'?",
    ),
    "a missing parameter": ({"kind": "cosine"}, "total_steps", "required"),
    "no steps at all": (
        {"kind": "cosine", "total_steps": 0},
        "total_steps",
        "whole number of steps, at least 1",
    ),
    "a negative period": ({"kind": "step", "step_size": -1}, "step_size", "whole number of steps"),
    "a fraction of a step": (
        {"kind": "step", "step_size": 2.5},
        "step_size",
        "whole number of steps",
    ),
    "a truth value": ({"kind": "step", "step_size": True}, "step_size", "whole number of steps"),
    "a text": ({"kind": "exponential", "gamma": "0.9"}, "gamma", "number"),
    "NaN": ({"kind": "exponential", "gamma": float("nan")}, "gamma", "finite"),
    "infinity": ({"kind": "ramp", "end": float("inf"), "steps": 3}, "end", "finite"),
    "a number beyond float64": ({"kind": "exponential", "gamma": 10**400}, "gamma", "number"),
    "a step beyond 2**53": (
        {"kind": "step", "step_size": 2**60},
        "step_size",
        "whole number of steps",
    ),
    "descending boundaries": (
        {"kind": "piecewise_constant", "boundaries": [9, 3], "levels": [1.0, 2.0, 3.0]},
        "boundaries",
        "Sort",
    ),
    "too few levels": (
        {"kind": "piecewise_constant", "boundaries": [3, 9], "levels": [1.0]},
        "",
        "one level for each",
    ),
    "too many milestones": (
        {"kind": "multistep", "milestones": list(range(10_001))},
        "milestones",
        "at most",
    ),
    "phases that overlap": (
        {
            "kind": "one_cycle",
            "total_steps": 10,
            "three_phase": True,
            "pct_start": 0.5,
            "pct_final": 0.4,
        },
        "",
        "lower pct_start",
    ),
    "knots that end in a jump and cannot go on": (
        {
            "kind": "knots",
            "points": [{"at": at, "level": 1.0} for at in (0, 9, 9)],
            "out_of_range": "extrapolate",
        },
        "",
        "two steps",
    ),
    "a table that cannot go on": (
        {"kind": "table", "levels": [1.0], "out_of_range": "extrapolate"},
        "out_of_range",
        "'hold', 'bounce' or 'error'",
    ),
    "no time to decay": (
        {"kind": "warmup_cosine", "warmup_steps": 10, "total_steps": 10},
        "",
        "must be above warmup_steps",
    ),
    "a part without an end": (
        {"kind": "sequence", "parts": [{"schedule": "constant"}, {"schedule": "constant"}]},
        "",
        "how long it lasts",
    ),
    "parts with other channels": (
        {
            "kind": "sequence",
            "parts": [
                {"schedule": "constant", "steps": 5},
                {"schedule": {"kind": "one_cycle", "total_steps": 9, "cycle_momentum": True}},
            ],
        },
        "",
        "the same channels",
    ),
    "a part that ends before it starts": (
        {
            "kind": "sequence",
            "parts": [
                {"schedule": "constant", "until": 9},
                {"schedule": "constant", "until": 5},
                {"schedule": "constant"},
            ],
        },
        "",
        "sort the ends",
    ),
    "a rescaled part of no length": (
        {
            "kind": "sequence",
            "clock": "rescaled",
            "parts": [{"schedule": "constant", "steps": 9}, {"schedule": "constant", "steps": 0}],
        },
        "",
        "must end after it starts",
    ),
    "a floor given twice": (
        {"kind": "cosine", "total_steps": 9, "min_lr": 0.01, "min_ratio": 0.1},
        "",
        "give one",
    ),
    "a warmup with two floors": (
        {
            "kind": "warmup_cosine",
            "warmup_steps": 1,
            "total_steps": 9,
            "min_lr": 0.01,
            "min_ratio": 0.1,
        },
        "",
        "give one",
    ),
    "channels without lr": ({"kind": "channels", "laws": {"momentum": "constant"}}, "", "`lr`"),
    "a mistake deep inside": (
        {"kind": "warmup", "steps": 3, "schedule": {"kind": "step", "step_size": 1, "gama": 1.0}},
        "schedule.gama",
        "Did you mean 'gamma'?",
    ),
}


@pytest.mark.parametrize(("spec", "place", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_that_makes_no_sense_is_refused(
    spec: dict[str, Any], place: str, hint: str
) -> None:
    """The error names the place and says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse(spec)
    [error] = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == place
    assert hint in error["msg"]


COSINE = {"kind": "cosine", "total_steps": 90, "min_ratio": 0.1}


@pytest.mark.parametrize("mode", ["prefix", "overlay", "multiply", "replace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_warmup_of_no_steps_is_none(mode: str, offset: int) -> None:
    """A sweep over lengths that begins at 0 needs no other kind for it, in any mode."""
    spec = {"kind": "warmup", "schedule": COSINE, "mode": mode, "offset": offset}
    t = np.arange(100.0)
    plain = Schedule.parse(COSINE).values(t, 0.1)
    assert_array_equal(Schedule.parse(spec | {"steps": 0}).values(t, 0.1), plain)
    assert Schedule.parse(spec | {"steps": 1000}).values(t, 0.1)[1] < plain[1]


def test_other_warmups_of_no_steps_are_none_too() -> None:
    """`warmup_cosine`, `splice`, `jagged` and `linear` take 0 likewise."""
    t = np.arange(100.0)
    plain = Schedule.parse(COSINE).values(t, 0.1)
    warmed = {"kind": "warmup_cosine", "warmup_steps": 0, "total_steps": 90, "min_ratio": 0.1}
    spliced = {"kind": "splice", "first": "constant", "steps": 0, "second": COSINE}
    for spec in (warmed, spliced):
        assert_array_equal(Schedule.parse(spec).values(t, 0.1), plain)
    jagged = {"kind": "jagged", "schedule": COSINE, "restart_steps": 20, "warmup_steps": 0}
    assert Schedule.parse(jagged).values(t[20:39], 0.1).tolist() == plain[20:39].tolist()
    line = {"kind": "linear", "start_factor": 0.1, "end_factor": 0.5, "total_iters": 0}
    assert set(Schedule.parse(line).values(t, 0.5)) == {0.25}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(0, 5),
    st.sampled_from(["local", "global", "rescaled"]),
    st.sampled_from(["base", "continue"]),
    st.sampled_from(["next", "previous"]),
)
def test_a_stage_of_no_steps_is_left_out(
    lengths: list[int], at: int, clock: str, value: str, boundary: str
) -> None:
    """This holds at any place of a sequence, and for any of its clocks and values."""
    parts = [
        {"schedule": {"kind": "ramp", "end": float(number), "steps": 5}, "steps": length + 1}
        for number, length in enumerate(lengths)
    ]
    empty = {"schedule": {"kind": "hold", "value": 99.0}, "steps": 0}
    at = min(at, len(parts) - 1)
    how = {"kind": "sequence", "clock": clock, "value": value, "boundary": boundary}
    t = np.arange(60.0)
    assert_array_equal(
        Schedule.parse(how | {"parts": [*parts[:at], empty, *parts[at:]]}).values(t, 0.1),
        Schedule.parse(how | {"parts": parts}).values(t, 0.1),
    )


@given(st.integers(1, 99), st.floats(0, 1), rates)
def test_a_floor_may_be_a_part_of_the_base(steps: int, ratio: float, base: float) -> None:
    """One law for groups of different bases ends each at its own fraction, to the bit."""
    law = Schedule.parse({"kind": "cosine", "total_steps": steps, "min_ratio": ratio})
    t = np.arange(120.0)
    absolute = Schedule.parse({"kind": "cosine", "total_steps": steps, "min_lr": ratio * base})
    assert_allclose(law.values(t, base), absolute.values(t, base), rtol=1e-13)
    assert set(law.values(t[steps:], base)) == {ratio * base}


def nested(depth: int) -> dict[str, Any]:
    """Nest sequences of many parts, each of them driving two channels."""
    inner: dict[str, Any] = {"kind": "one_cycle", "total_steps": 9, "cycle_momentum": True}
    for _ in range(depth):
        parts = [{"schedule": inner, "steps": 10}, {"schedule": inner}]
        inner = {"kind": "sequence", "parts": parts}
    return inner


def test_deep_sequences_are_read_once() -> None:
    """The channels of nested sequences are found in the time that their size allows."""
    schedule = Schedule.parse(nested(6))
    assert set(schedule.channels()) == {"lr", "momentum"}
