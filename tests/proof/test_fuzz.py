"""No call that the API's document allows, or forbids, is answered 5xx or passes without a token."""

import re
from pathlib import Path

import pytest

from proof.fuzz import PHASES, STRICT, TOKEN, fuzz


def _cases(said: str) -> int:
    """Return how many calls were tried."""
    found = re.search(r"(\d+) generated", said)
    assert found, said
    return int(found[1])


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["token", "open"])
def test_no_call_is_answered_5xx_or_passes_without_its_token(token: str, tmp_path: Path) -> None:
    """A few examples of every operation; `make soak` has all phases, with more."""
    done = fuzz(tmp_path, examples=1, phases="fuzzing", checks=STRICT, token=token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _cases(done.stdout) > 40


@pytest.mark.slow
@pytest.mark.parametrize("token", [TOKEN, ""], ids=["token", "open"])
def test_no_sequence_of_calls_is_answered_5xx(token: str, tmp_path: Path) -> None:
    """All phases: examples, each boundary of each field, drawn ones, and calls upon calls."""
    done = fuzz(tmp_path, examples=50, phases=PHASES, checks=STRICT, token=token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _cases(done.stdout) > 1000
