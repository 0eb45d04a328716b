"""Pending readings: an immutable value that behaves as a plain dictionary of them would."""

from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.measuring import Pending

readings = st.builds(
    Reading,
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from(["loss", "acc"]),
    st.floats(allow_nan=False),
)
consumed = st.dictionaries(st.sampled_from(["loss", "acc", "other"]), st.integers(-1, 5))


@given(st.lists(st.lists(readings, max_size=6), max_size=6), consumed)
def test_it_is_the_dictionary_in_which_the_first_reading_of_a_key_counts(
    batches: list[list[Reading]], consumed: dict[str, int]
) -> None:
    """This holds through additions and removals, for every way to read it; no old value changes."""
    pending, plain = Pending(), dict[tuple[int, str, int], Reading]()
    for batch in batches:
        before, said = pending, dict(plain)
        pending = pending.added(batch)
        for reading in batch:
            plain.setdefault(reading.key, reading)
        assert before == said, "what was handed out does not change"
    assert pending == plain
    assert len(pending) == len(plain)
    assert sorted(pending.readings()) == sorted(plain.values())
    assert repr(pending) == repr(Pending(sorted(plain.values())))
    for (step, metric, rank), reading in plain.items():
        assert pending.at(step, metric)[rank] == pending.by_metric()[metric][step][rank] == reading
    left = pending.later_than(consumed)
    assert left == {k: r for k, r in plain.items() if r.step > consumed.get(r.metric, -1)}
    assert pending == plain


def test_what_is_not_there_is_not_there() -> None:
    """A key of a step without reports is missing, as is one of another rank."""
    pending = Pending([Reading(1, 5, "loss", 0.5)])
    assert (5, "loss", 1) in pending
    assert (5, "loss", 0) not in pending
    assert (4, "loss", 1) not in pending
    assert dict(pending.at(4, "loss")) == {}
