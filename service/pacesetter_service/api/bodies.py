"""Reading bodies: small ones directly, large ones on another thread, all with bounds.

The framework would read a body on the event loop, while all calls wait: a megabyte of mistakes took
it minutes.
"""

import json
from collections.abc import Callable
from json import JSONDecodeError
from typing import Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, JsonValue, ValidationError
from starlette.exceptions import HTTPException

from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.problems import InvalidBodyError
from pacesetter_service.core.model import few_hints
from pacesetter_service.runtime.arguments import MAX_ERRORS
from pacesetter_service.runtime.service import Service

SMALL = 16_384
"""The most bytes of a body that is read where it arrives: handing it over would cost more."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def read_by(read: Callable[[JsonValue], T]) -> Any:  # noqa: ANN401 - what FastAPI takes
    """Declare a parameter that a function makes from the body."""

    async def body(request: Request) -> T:
        raw = await request.body()
        if len(raw) <= SMALL:
            return parsed(raw, read)
        service: Service = request.app.state.service
        return await unless_gone(request, service.checks.run(lambda _check: parsed(raw, read)))

    return Depends(body)


def model(kind: type[M]) -> Any:  # noqa: ANN401 - what FastAPI takes
    """Declare a parameter that is the body, as a model."""
    return read_by(kind.model_validate)


def parsed(raw: bytes, read: Callable[[JsonValue], T]) -> T:
    """Read a body.

    Raises:
        InvalidBodyError: Its content is not valid.
        RequestValidationError: It is not JSON.
        HTTPException: It cannot be read at all.
    """
    try:
        with few_hints(MAX_ERRORS):
            return read(_json(raw))
    except ValidationError as error:
        raise InvalidBodyError(error) from None


_NO_BODY = "Send a JSON object as the body; an empty one is {}"
_NO_TEXT = "Half of a surrogate pair is no text: send whole characters, as UTF-8 or both halves"


def _json(raw: bytes) -> JsonValue:
    if not raw:
        raise RequestValidationError([{"type": "no_body", "loc": ("body",), "msg": _NO_BODY}])
    try:
        found: JsonValue = json.loads(raw)
        if b"\\" in raw or not raw.isascii():  # only these can hold half of a surrogate pair
            json.dumps(found, ensure_ascii=False).encode()
    except JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno} column {error.colno}"
        mistake = {"type": "json_invalid", "loc": ("body",), "msg": "", "ctx": {"error": where}}
        raise RequestValidationError([mistake]) from None
    except UnicodeEncodeError:
        mistake = {"type": "not_unicode", "loc": ("body",), "msg": _NO_TEXT}
        raise RequestValidationError([mistake]) from None
    except (ValueError, RecursionError) as error:
        raise HTTPException(400) from error
    return found
