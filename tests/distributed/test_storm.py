"""The storms in a short form; `storm.py` has the long ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed import storm
from distributed.exact import WAYS, weights_by

STEPS = 40
RATES = [0.1 / (1 + step) for step in range(STEPS)]


def test_ranks_stay_alike_in_a_storm():
    """A server with every kind of fault and an operator's orders do not part two ranks."""
    weather = storm.storm(ranks=2, steps=800, calm=0.2, seed=3, forks=True)
    assert weather.kills
    assert weather.stops
    assert weather.slow
    assert weather.cuts
    assert weather.actions
    assert weather.revisions


@pytest.mark.parametrize("way", WAYS[1:])
def test_ranks_that_share_a_model_stay_alike_in_a_storm(way: str):
    """Shards of FSDP2, and DTensors of tensor parallelism, have the weights of the sealed rates."""
    weather = storm.storm(ranks=2, steps=150, calm=0.2, seed=5, way=way, forks=True)
    assert weather.kills + weather.stops + weather.slow + weather.cuts + weather.actions


@settings(max_examples=20)
@given(st.integers(0, STEPS - 1), st.sampled_from(WAYS))
def test_a_rate_that_was_wrong_once_shows_in_the_weights(step: int, way: str):
    """The bits of weights show that one step was trained with a rate off by a millionth."""
    wrong = [*RATES[:step], RATES[step] * (1 + 1e-6), *RATES[step + 1 :]]
    assert weights_by(wrong, way, 4) != weights_by(RATES, way, 4)


def test_each_life_of_a_job_is_an_attempt():
    """When torchelastic's workers are killed, they go on from the checkpoint, at equal rates."""
    weather = storm.elastic(ranks=2, steps=60, kills=1, forks=True)
    assert weather.kills == 1
