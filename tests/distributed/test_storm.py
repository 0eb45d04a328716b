"""The storms, short; `storm.py` has the long ones."""

from distributed import storm


def test_ranks_stay_alike_in_a_storm():
    """A server in every kind of trouble under two ranks, and an operator at work, part nobody."""
    weather = storm.storm(ranks=2, steps=400, calm=0.3, seed=3, forks=True)
    assert weather.kills
    assert weather.stops
    assert weather.slow
    assert weather.cuts
    assert weather.actions
    assert weather.revisions


def test_each_life_of_a_job_is_an_attempt():
    """Workers killed by torchelastic's side go on from the checkpoint, all at the same rates."""
    weather = storm.elastic(ranks=2, steps=60, kills=1, forks=True)
    assert weather.kills == 1
