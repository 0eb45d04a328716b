"""How many calls there are, how long they take and how they end; and the id of each call in logs.

The hot call passes here too, so nothing takes a lock or makes a label: one thread counts with plain
numbers, and `metrics.py` gives them their names.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api.access import METHODS, route_of
from pacesetter_service.calls import CURRENT, REQUEST_ID, Call
from pacesetter_service.runtime.histogram import Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

PAGES = "dashboard"
"""The route of everything that is served beside the API."""

OTHER = "other"
"""The route and the method of calls without a route: callers can invent any number of them."""

UNANSWERED = "none"
"""The status of a call whose caller left before there was an answer."""

COME_AGAIN = 503
"""Not a fault: a step awaits its measurement, the queue is full, or the database is away."""

STATUSES = (UNANSWERED, "1xx", "2xx", "3xx", "4xx", "5xx", str(COME_AGAIN))


OK = 200

SYNC = "/v1/sessions/{name}/sync"
"""The route of the hot call."""


class Calls:
    """The calls of one route.

    Attributes:
        seconds: How long each took until its answer began.
        statuses: How many were answered with each class of status, as in `STATUSES`.
    """

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.statuses = [0] * len(STATUSES)

    def note(self, status: int, seconds: float) -> None:
        """Count a call; 0 for the status of one without an answer."""
        self.seconds.observe(seconds)
        self.statuses[-1 if status == COME_AGAIN else status // 100] += 1


class Traffic:
    """ASGI middleware that measures every call, and names it by a request id.

    The duration of a call ends when its answer begins: a held call takes as long as it is held, and
    an event stream does not count as slow.

    Attributes:
        open: How many calls are being answered now, except for the hot ones.
    """

    def __init__(self, app: ASGIApp, beside: Callable[[str], bool] = lambda _path: False) -> None:
        """Measure the calls of an application.

        Args:
            app: The application.
            beside: Returns whether an address is served beside the API.
        """
        self._app = app
        self._beside = beside
        self._synced = Calls()
        self._calls = {("POST", SYNC): self._synced}
        self.open = 0

    @property
    def calls(self) -> Mapping[tuple[str, str], Calls]:
        """The calls by method and route; readable from any thread."""
        return dict(self._calls)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a call on, and count it when its answer begins."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        route = route_of(scope["method"], scope["path"])
        if route == SYNC and scope["method"] == "POST":
            return self._hot(scope, receive, send)
        if route is None and self._beside(scope["path"]):
            route = PAGES
        return self._any(route, scope, receive, send)

    def _hot(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a hot call on without another coroutine, which would cost as much as the rest."""
        answered, began, call = False, perf_counter(), Call(scope["headers"])
        CURRENT.set(call)  # the server answers each call in a separate context

        def noted(message: Message) -> Awaitable[None]:
            nonlocal answered
            if not answered:  # the first message is the head
                answered = True
                self._synced.note(message["status"], perf_counter() - began)
                # A caller that sent no id and got a window will not search the log.
                if message["status"] != OK or call.given is not None:
                    _name(message, call)
            return send(message)

        return self._app(scope, receive, noted)

    async def _any(self, route: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        answered, began, call = False, perf_counter(), Call(scope["headers"])
        calls = self._calls_of(scope["method"], route)
        CURRENT.set(call)

        def noted(message: Message) -> Awaitable[None]:
            nonlocal answered
            if not answered:
                answered = True
                calls.note(message["status"], perf_counter() - began)
                _name(message, call)
            return send(message)

        self.open += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self.open -= 1
            if not answered:
                calls.note(0, perf_counter() - began)

    def _calls_of(self, method: str, route: str | None) -> Calls:
        if route is None or route == PAGES:
            route, method = route or OTHER, method if method in METHODS else OTHER
        calls = self._calls.get((method, route))
        if calls is None:
            calls = self._calls[method, route] = Calls()
        return calls


def _name(message: Message, call: Call) -> None:
    message["headers"] = [*message.get("headers", ()), (REQUEST_ID, call.request_id)]
