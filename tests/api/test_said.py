"""Answers of the hot call that are served again."""

import gc
from weakref import ref

from pacesetter_service.api.said import SaidBefore
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec


def test_the_same_state_is_answered_the_same() -> None:
    """Ranks with the same request get what was encoded for the first of them."""
    said, session = SaidBefore(), create(SessionSpec(name="run", base_lr=0.1))
    said.keep(session, "a window", b"values")
    assert said.find(session, "a window") == b"values"
    assert said.find(session, "another window") is None


def test_another_state_of_a_session_is_answered_anew() -> None:
    """An answer is kept for the very state that it was made from, even if another one is equal."""
    said, spec = SaidBefore(), SessionSpec(name="run", base_lr=0.1)
    before, after = create(spec), create(spec)
    said.keep(before, "a window", b"values")
    assert said.find(after, "a window") is None


def test_an_answer_keeps_no_state_alive() -> None:
    """Otherwise a purged session would stay in memory until others are asked for."""
    said, session = SaidBefore(), create(SessionSpec(name="run", base_lr=0.1))
    said.keep(session, "a window", b"values")
    state = ref(session)
    del session
    gc.collect()
    assert state() is None
