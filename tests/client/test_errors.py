"""Errors made from the server's problems."""

import json

import pytest

from pacesetter import (
    APIError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    StaleAttemptError,
)
from pacesetter._errors import api_error


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "session_not_found", NotFoundError),
        (409, "session_exists", ConflictError),
        (409, "stale_attempt", StaleAttemptError),
        (413, "body_too_large", InvalidRequestError),
        (415, "unsupported_media_type", InvalidRequestError),
        (422, "validation_failed", InvalidRequestError),
        (429, "slow_down", ServerError),
        (500, "internal", ServerError),
        (503, "overloaded", ServerError),
        (405, "method_not_allowed", APIError),
    ],
)
def test_a_problem_becomes_the_error_of_its_kind(status: int, code: str, kind: type[APIError]):
    """Errors that a caller may treat differently have different classes."""
    error = api_error(status, json.dumps({"code": code, "detail": "Do this."}).encode(), 2.0)
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, code, "Do this.")
    assert error.retry_after == 2.0
    assert "Do this." in str(error)


def test_refused_fields_are_in_the_message():
    """Each refused field is named in the message, where it will be read."""
    errors = [{"pointer": "/schedule/total_steps", "detail": "must be positive"}]
    error = api_error(422, json.dumps({"code": "validation_failed", "errors": errors}).encode())
    assert error.errors == tuple(errors)
    assert "/schedule/total_steps: must be positive" in str(error)


@pytest.mark.parametrize("content", [b"", b"<html>nginx</html>", b"[1]", b"\xff\xfe", b"[" * 10**5])
def test_an_answer_that_is_no_problem_still_makes_a_readable_error(content: bytes):
    """For a proxy's page, the message names the likely cause instead of failing to parse."""
    error = api_error(502, content)
    assert type(error) is ServerError
    assert "proxy" in str(error)
