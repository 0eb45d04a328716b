"""How many calls there are, how long they take and how they end; and what each is called in logs.

The hot call passes here too, so nothing takes a lock or makes a label: one thread counts, into
plain numbers, and `metrics.py` gives them their names.
"""

from collections.abc import Awaitable, Mapping
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacesetter_service.api.access import METHODS, route_of
from pacesetter_service.calls import CURRENT, REQUEST_ID, Call
from pacesetter_service.runtime.histogram import Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

OTHER = "other"
"""The route of what has none, and the method of what no route takes: callers invent any number."""

UNANSWERED = "none"
"""The status of a call whose caller went before there was an answer."""

COME_AGAIN = 503
"""What is no fault: a step awaits its measurement, the queue is full, the database is away."""

STATUSES = (UNANSWERED, "1xx", "2xx", "3xx", "4xx", "5xx", str(COME_AGAIN))


OK = 200


class Calls:
    """The calls of one route.

    Attributes:
        seconds: How long each took, until its answer began.
        statuses: How many were answered by each class of status, as in `STATUSES`.
    """

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.statuses = [0] * len(STATUSES)


class Traffic:
    """ASGI middleware that measures every call, and names it by a request id.

    A call takes until its answer begins: a held one as long as it is held, and an event stream is
    not counted as one that is slow.

    Attributes:
        open: How many calls are being answered now.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._calls: dict[tuple[str, str], Calls] = {}
        self.open = 0

    @property
    def calls(self) -> Mapping[tuple[str, str], Calls]:
        """The calls by method and route; from any thread."""
        return dict(self._calls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, and count it when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered, began = False, perf_counter()
        call = Call(scope["headers"])
        CURRENT.set(call)  # the server answers each call in a context of its own

        # No coroutine of its own: of the hot call each layer is a hundredth.
        def noted(message: Message) -> Awaitable[None]:
            nonlocal answered
            if not answered:  # what comes first is the head
                answered = True
                self._count(scope, message["status"], perf_counter() - began)
                # Who named nothing and was given a window has no question to ask of a log.
                if call.given is not None or not (message["status"] == OK and _is_sync(scope)):
                    headers = message.get("headers", ())
                    message["headers"] = [*headers, (REQUEST_ID, call.request_id)]
            return send(message)

        self.open += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self.open -= 1
            if not answered:
                self._count(scope, 0, perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method: str = scope["method"]
        route = route_of(method, scope["path"])
        if route is None:
            route, method = OTHER, method if method in METHODS else OTHER
        calls = self._calls.get((method, route))
        if calls is None:
            calls = self._calls[method, route] = Calls()
        calls.seconds.observe(seconds)
        calls.statuses[-1 if status == COME_AGAIN else status // 100] += 1


def _is_sync(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.endswith("/sync")
