"""Operations on a server, described once; each client carries them out in its own way.

A method that is decorated here only says what to ask and how to read the answer: it does no network
exchange. `Client` carries it out and returns the result; with `AsyncClient` the result is awaited,
or iterated with `async for`.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import MethodType
from typing import IO, Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

from pacesetter._errors import APIError, InvalidAnswerError

JSON = "application/json"
TEXT = "text/plain"
SVG = "image/svg+xml"

T = TypeVar("T")
P = ParamSpec("P")


class Described(Generic[T]):
    """A request whose result is a `T`."""


@dataclass(frozen=True)
class Call(Described[T]):
    """One exchange.

    Attributes:
        method: The HTTP method.
        path: Below the server's address.
        read: Turns the answer into what the caller gets: its JSON, or its text.
        params: The query; None values are left out.
        body: Sent as JSON.
        headers: In addition to those that every call has.
        accept: The media type wanted; where it is not JSON, the answer is read as text.
        repeatable: Whether asking twice does what asking once does. If not, the call is retried
            only where the server has said that it did nothing.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    accept: str = JSON
    repeatable: bool = True

    def answered(self, content: bytes, url: str) -> T:
        """Read the answer.

        Raises:
            InvalidAnswerError: It cannot belong to the call.
        """
        try:
            if self.accept != JSON:
                return self.read(content.decode())
            return self.read(json.loads(content) if content else {})
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise InvalidAnswerError(
                f"{self.method} {self.path}: the answer cannot be read"
                f" ({type(error).__name__}: {error}): check that {url} is a Pacesetter server, of a"
                " version that fits"
            ) from error


@dataclass(frozen=True)
class Download(Described[None]):
    """A record that is written into a file, which gets its name only once it is complete."""

    path: str
    file: str | PathLike[str] | IO[bytes]


@dataclass(frozen=True)
class Upload(Described[T]):
    """A record that is sent from a file, and restored under a name."""

    file: str | PathLike[str] | IO[bytes]
    read: Callable[[Any], T]
    name: str | None


Several: TypeAlias = Generator[Call[Any], Any, T]
"""Calls that are made one after the other; each `yield` returns the result of its call."""


def asked(call: Call[T]) -> Several[T]:
    """Make one of several calls, and return its result."""
    done: T = yield call
    return done


@dataclass(frozen=True)
class Done(Generic[T]):
    """The result of several calls."""

    value: T


def resumed(plan: Several[T], outcome: object = None) -> Call[Any] | Done[T]:
    """Go on with several calls: return the next one, or the result of them all.

    Args:
        plan: The calls.
        outcome: The outcome of the one before: an answer, or a refusal that the plan may handle;
            None before the first.
    """
    try:
        if isinstance(outcome, APIError):
            return plan.throw(outcome)
        return plan.send(outcome)
    except StopIteration as end:
        return Done(end.value)


@dataclass(frozen=True)
class Found(Generic[T]):
    """Some items of a list."""

    items: list[T]


Listed: TypeAlias = Generator["Call[Any] | Found[T]", Any, None]
"""A list, page by page: calls are made, and the items that they find are passed on."""


@dataclass(frozen=True)
class Feed(Generic[T]):
    """Events as they happen: without an end, and resumed where the connection was lost.

    Attributes:
        path: Below the server's address.
        after: The place of the last event that is known.
        place: Returns the place of an event, given the place of the one before, or raises
            `InvalidAnswerError` because one was left out, or comes twice.
        kinds: The kinds of events that are passed on; None for all.
        params: The query, without `after`.
        before: The call made first: the server refuses it where the feed would wait for ever.
    """

    path: str
    after: Any
    place: Callable[[Any, Any], Any]
    kinds: frozenset[str] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    before: Call[Any] | None = None

    def query(self, after: object) -> dict[str, Any]:
        """Return the query that resumes the feed after a place."""
        return {**self.params, "after": after}

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event is passed on."""
        return self.kinds is None or event.get("kind") in self.kinds


class Carrier:
    """Carries out operations, and returns when they are done."""

    def _done(self, asked: Described[T] | Several[T]) -> T:
        raise NotImplementedError

    def _gone_through(self, asked: Listed[T] | Feed[T]) -> Generator[T, None, None]:
        raise NotImplementedError


class AsyncCarrier:
    """Carries out operations while other tasks go on."""

    async def _done(self, asked: Described[T] | Several[T]) -> T:
        raise NotImplementedError

    def _gone_through(self, asked: Listed[T] | Feed[T]) -> AsyncGenerator[T, None]:
        raise NotImplementedError


class Operation(Generic[P, T]):
    """A method of both clients, made of the function that describes it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Described[T] | Several[T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

        @functools.wraps(describe)
        def carried_out(client: Any, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ANN401
            done: T = client._done(describe(client, *args, **kwargs))  # noqa: SLF001
            return done

        @functools.wraps(describe)
        async def awaited(client: Any, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ANN401
            done: T = await client._done(describe(client, *args, **kwargs))  # noqa: SLF001
            return done

        self._carried_out = _shown(carried_out, describe)
        self._awaited = _shown(awaited, describe)

    @overload
    def __get__(self, client: Carrier, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: AsyncCarrier, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Any]: ...

    def __get__(self, client: object, owner: type) -> Callable[..., Any]:
        """Return the method of a client, or the function of its class."""
        function = self._awaited if issubclass(owner, AsyncCarrier) else self._carried_out
        return function if client is None else MethodType(function, client)


class Listing(Generic[P, T]):
    """A method of both clients that iterates over a list."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Listed[T] | Feed[T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

        @functools.wraps(describe)
        def gone_through(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401
            return client._gone_through(describe(client, *args, **kwargs))  # noqa: SLF001

        self._gone_through = _shown(gone_through, describe, "Iterator")

    @overload
    def __get__(self, client: Carrier, owner: type) -> Callable[P, Generator[T, None, None]]: ...

    @overload
    def __get__(
        self, client: AsyncCarrier, owner: type
    ) -> Callable[P, AsyncGenerator[T, None]]: ...

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, P], Any]: ...

    def __get__(self, client: object, owner: type) -> Callable[..., Any]:
        """Return the method of a client, or the function of its class."""
        return self._gone_through if client is None else MethodType(self._gone_through, client)


_DESCRIBED = re.compile(r"(?:Call|Several|Upload|Listed)\[(.*)\].*|Download()")


def _shown(
    function: Callable[..., Any], describe: Callable[..., Any], kind: str = ""
) -> Callable[..., Any]:
    """Make a method's signature show its result, in place of the request."""
    signature = inspect.signature(describe)
    found = _DESCRIBED.fullmatch(str(signature.return_annotation))
    assert found is not None, describe  # noqa: S101 - a slip of ours
    returned = f"{kind}[{found[1]}]" if kind else found[1] or "None"
    shown: Any = function
    shown.__signature__ = signature.replace(return_annotation=returned)
    shown.__annotations__ = {**describe.__annotations__, "return": returned}
    return function


def operation(
    describe: Callable[Concatenate[Any, P], Described[T] | Several[T]],
) -> Operation[P, T]:
    """Make a method of both clients from a function that describes a request."""
    return Operation(describe)


def listing(
    describe: Callable[Concatenate[Any, P], Listed[T] | Feed[T]],
) -> Listing[P, T]:
    """Make a method of both clients from a function that describes how to iterate over a list."""
    return Listing(describe)


def an_object(answer: Any) -> dict[str, Any]:  # noqa: ANN401 - the JSON of an answer
    """Return an answer that is a JSON object.

    Raises:
        TypeError: It is not an object.
    """
    if not isinstance(answer, dict):
        raise TypeError("no JSON object")
    return answer


def nothing(_: object) -> None:
    """Return nothing: the answer has no content of interest."""


def listed_as(name: str) -> Callable[[Any], list[dict[str, Any]]]:
    """Return a function that reads a list, by itself or by its name in an object."""

    def read(answer: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the JSON of an answer
        items = answer[name] if isinstance(answer, dict) else answer
        if not isinstance(items, list):
            raise TypeError(f"no list of {name}")
        return items

    return read
