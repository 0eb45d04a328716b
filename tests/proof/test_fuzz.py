"""Every call, valid or not by the API's document, is answered as it says."""

import re
from pathlib import Path

import pytest

from proof.fuzz import PHASES, TOKENS, fuzz, parted


def _cases(said: str) -> int:
    """Return how many calls were tried."""
    found = re.search(r"(\d+) generated", said)
    assert found, said
    return int(found[1])


@pytest.mark.parametrize("token", TOKENS, ids=["token", "open"])
def test_each_call_is_answered_as_its_description_says(token: str, tmp_path: Path) -> None:
    """A few examples of every operation, with all checks; `make soak` has all phases, with more."""
    done = fuzz(tmp_path, examples=1, phases="fuzzing", token=token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _cases(done.stdout) > 40


@pytest.mark.slow
@pytest.mark.parametrize("token", TOKENS, ids=["token", "open"])
@pytest.mark.parametrize("phases", parted(PHASES))
def test_each_boundary_and_sequence_is_answered_as_described(
    phases: str, token: str, tmp_path: Path
) -> None:
    """All phases: examples, each boundary of each field, random ones, and sequences of calls."""
    done = fuzz(tmp_path, examples=20, phases=phases, token=token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _cases(done.stdout) > 1000
