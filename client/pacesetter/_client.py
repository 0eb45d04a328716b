"""The client: the server's sessions, schedules and version, over one connection pool."""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pacesetter import _record
from pacesetter._bootstrap import Bootstrap
from pacesetter._errors import (
    MOST_FIELDS,
    ConflictError,
    InvalidAnswerError,
    PacesetterError,
    ServerUnavailableError,
)
from pacesetter._feed import Feed
from pacesetter._info import SessionInfo
from pacesetter._notices import OnNotice
from pacesetter._outage import Bridge, OutagePolicy
from pacesetter._range_test import RangeTest
from pacesetter._session import CLOSE_SECONDS, Session, checked_bounds
from pacesetter._spec import Description, differences, session_body
from pacesetter._transport import Transport

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self, Unpack  # of Python 3.11

    import httpx

DEFAULT_URL = "http://127.0.0.1:7070"

logger = logging.getLogger("pacesetter")


class Client:
    """A connection to a Pacesetter server.

    ```python
    with Client() as client:
        session = client.session("vit-run-42", schedule={"kind": "cosine", "total_steps": 1000},
                                 base_lr=0.1)
        session.lr(0)
    ```

    Args:
        url: the server's address; without one `PACESETTER_URL`, else `http://127.0.0.1:7070`.
        timeout: seconds that one exchange may take.
        retry_for: seconds for which a call is tried again while the server is away.
        max_wait: seconds that a training waits for the server once its sealed values are used up,
            before `ServerUnavailableError`. Must be the same on all ranks.
        on_outage: what a training does then: `"wait"` for those seconds, `"hold"` the last value or
            follow the `"forecast"`, or an `OutagePolicy` with its bounds. The latter two only where
            one process decides for all: a training in one process, or `RemoteLR` under
            torch.distributed in its usual mode.
        on_notice: called with each `Notice` to the trainer of a session opened here, see
            `Session.on_notice`; without it they are logged.
        token: the access token, where the server asks for one; without it `PACESETTER_TOKEN`. It
            goes to that address only, and into no log, error or pickle: a copy in another process
            takes the environment's.
        transport: an httpx transport in place of the network, for tests and special wiring.

    Every method raises `ServerUnavailableError` when the server stays away for `retry_for` seconds,
    `APIError` when it refuses (`AuthenticationError` and `PermissionDeniedError` where that is for
    the token), and `InvalidAnswerError` when it answers nonsense.

    Raises:
        ValueError: an argument makes no sense, the URL has a password in it, the token cannot be
            sent, or the environment names an unusable proxy.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 10.0,
        retry_for: float = 30.0,
        max_wait: float = 300.0,
        on_outage: str | OutagePolicy = "wait",
        on_notice: OnNotice | None = None,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        for name, seconds in (("retry_for", retry_for), ("max_wait", max_wait)):
            if not seconds >= 0:  # refuses NaN too
                raise ValueError(f"{name}={seconds}: give seconds, 0 or more")
        url = url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
        self._transport = Transport(url, timeout=timeout, token=token, transport=transport)
        self._retry_for = retry_for
        self._max_wait = max_wait
        self._on_outage = OutagePolicy.of(on_outage)
        self._on_notice = on_notice
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._feeds: weakref.WeakSet[Feed] = weakref.WeakSet()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    @property
    def longest_wait(self) -> float:
        """Seconds for which a call may wait for the server at most."""
        return max(self._retry_for, self._max_wait)

    def create_session(
        self,
        name: str,
        *,
        rank: int = 0,
        lr_bounds: tuple[float, float] | None = None,
        **description: Unpack[Description],
    ) -> Session:
        """Create a session, or open it when it was created with the same description before.

        Args:
            name: 1 to 128 of `A-Za-z0-9._-`, unique on the server.
            rank: which of the session's ranks reports from here.
            lr_bounds: `(low, high)`; a learning rate outside is refused, whatever the server says.
            **description: what it is, such as `base_lr=0.1, schedule={"kind": "constant"}`; every
                keyword is told by `pacesetter.Description`.

        Raises:
            ConflictError: the name is taken by a session of another description.
            InvalidRequestError: the description is refused; `.errors` says where.
            TypeError: a session cannot be described by some of the keywords.
        """
        body = session_body(name, description)
        try:
            answer = self._json("POST", "/v1/sessions", body=body)
        except ConflictError as error:
            raise self._explained(error, name, body) from None
        return self._open(SessionInfo.parse(answer, name), rank=rank, lr_bounds=lr_bounds)

    def _explained(self, error: ConflictError, name: str, body: Mapping[str, Any]) -> ConflictError:
        """The same, with what differs between a description and the session of that name."""
        try:
            found = differences(body, SessionInfo.parse(self._json("GET", _path(name)), name).spec)
        except PacesetterError:
            return error
        if error.code != "session_exists" or not found:
            return error
        return ConflictError(
            f"session {name} exists already, and differs in {', '.join(found[:MOST_FIELDS])}: "
            "choose another name, or describe it as it was.",
            status=error.status,
            code=error.code,
            problem=error.problem,
        )

    def session(
        self,
        name: str,
        *,
        rank: int = 0,
        lr_bounds: tuple[float, float] | None = None,
        step: int | None = None,
        attempt_key: str | None = None,
        bootstrap: str | Path | None = None,
        **spec: Unpack[Description],
    ) -> Session:
        """Open a session; with any description (as for `create_session`) create it if need be.

        Args:
            name: of the session.
            rank: which of the session's ranks reports from here.
            lr_bounds: `(low, high)`; a learning rate outside is refused, whatever the server says.
            step: go back to it, as after loading a checkpoint; see `Session.restart`.
            attempt_key: what all ranks of that restart share.
            bootstrap: a file of `export_bootstrap`, to start by when the server is away for
                `retry_for` seconds; needs `on_outage` to be `"hold"` or `"forecast"`.
            **spec: as for `create_session`.

        Raises:
            NotFoundError: there is no such session, and no description to create it by.
            ConflictError: the description given is another than the session's.
            StaleAttemptError: a later attempt has taken over from the one of that key.
        """
        if attempt_key is not None and step is None:
            raise ValueError(f"attempt_key={attempt_key!r} without step=: say where to go back to")
        if bootstrap is not None:
            if step is not None or not self._on_outage.goes_on:
                raise ValueError(
                    "bootstrap= starts a training without the server: it needs a Client with "
                    "on_outage='hold' or 'forecast', and cannot go back to a step"
                )
            return self._open_bootstrapped(name, bootstrap, rank, lr_bounds, spec)
        session = self._opened(name, rank, lr_bounds, spec)
        if step is not None:
            session.restart(step, key=attempt_key)
        return session

    def _opened(
        self,
        name: str,
        rank: int,
        lr_bounds: tuple[float, float] | None,
        spec: Description,
    ) -> Session:
        if spec:
            return self.create_session(name, rank=rank, lr_bounds=lr_bounds, **spec)
        info = SessionInfo.parse(self._json("GET", _path(name)), name)
        return self._open(info, rank=rank, lr_bounds=lr_bounds)

    def _open_bootstrapped(
        self,
        name: str,
        path: str | Path,
        rank: int,
        lr_bounds: tuple[float, float] | None,
        spec: Description,
    ) -> Session:
        stored = Bootstrap.read(path, name, checked_bounds(lr_bounds))
        try:
            return self._opened(name, rank, lr_bounds, spec)
        except ServerUnavailableError as error:
            logger.warning("session %s starts by %s: %s", name, path, error)
            return self._open(stored.info, rank=rank, lr_bounds=lr_bounds, stored=stored)

    def export_bootstrap(self, name: str, path: str | Path, *, count: int = 10_000) -> None:
        """Write what a training needs to start while the server is away.

        Args:
            name: of the session, which is to exist on the server.
            path: the JSON file to write; what was there is replaced.
            count: how many steps of the forecast, from the first step that is not sealed.
        """
        described = self._json("GET", _path(name))
        horizon = SessionInfo.parse(described, name).horizon
        Bootstrap.write(path, described, self.lr(name, horizon, count=count))

    def follow(
        self, info: SessionInfo, *, rank: int = 0, lr_bounds: tuple[float, float] | None = None
    ) -> Session:
        """A handle on a session that another process has opened; asks the server nothing."""
        return self._open(info, rank=rank, lr_bounds=lr_bounds, prime=False)

    def sessions(
        self, *, status: str | None = None, label: str | None = None
    ) -> Iterator[SessionInfo]:
        """All sessions, page by page.

        Args:
            status: only those `active`, or `archived`.
            label: only those with it, written `key:value`.
        """
        token = None
        while True:
            params = {"page_token": token, "status": status, "label": label}
            page = self._json("GET", "/v1/sessions", params=params)
            found = page.get("sessions")
            if not isinstance(found, list) or page.get("next_page_token") == (token or ""):
                raise InvalidAnswerError(
                    f"{self.url} answered no page of sessions: check that client and server are of "
                    "versions that fit"
                )
            yield from map(SessionInfo.parse, found)
            token = page.get("next_page_token")
            if not token:
                return

    def archive(self, name: str) -> None:
        """End a session: it can be read for ever, but neither sealed further nor reported to."""
        self._json("DELETE", _path(name))

    def lr(self, name: str, step: int, *, count: int | None = None) -> dict[str, Any]:
        """What a session says for a step, or for `count` steps, without sealing anything.

        Returns:
            `{"step", "lr", "sealed"}`, and with `count` `{"start", "series", "sealed_until"}`.
        """
        return self._json("GET", _path(name) + "/lr", params={"step": step, "count": count})

    def forecast(
        self, name: str, *, start: int = 0, count: int = 1000, points: int | None = None
    ) -> dict[str, Any]:
        """The curve as it would be if nothing more happened, thinned to `points`.

        Returns:
            `{"steps": [...], "series": {"lr": [...]}, "sealed_until": ...}`.
        """
        params = {"start": start, "count": count, "points": points}
        return self._json("GET", _path(name) + "/forecast", params=params)

    def preview(
        self,
        schedule: Mapping[str, Any],
        *,
        base_lr: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        start: int = 0,
        count: int = 1000,
        points: int | None = None,
    ) -> dict[str, Any]:
        """The curve of a schedule that no session has yet; answers like `forecast`."""
        given = {
            "schedule": schedule,
            "base_lr": base_lr,
            "groups": groups,
            "start": start,
            "count": count,
            "points": points,
        }
        body = {key: value for key, value in given.items() if value is not None}
        return self._json("POST", "/v1/schedules/preview", body=body)

    def range_test(
        self, name: str, *, metric: str | None = None, group: str | None = None
    ) -> RangeTest:
        """What a learning rate range test has shown so far, with the rates that rules suggest.

        Args:
            name: a session whose learning rate rises, as with the schedule `range_test`.
            metric: its loss; by default what its controller `range_test` watches.
            group: the parameter group, where their rates differ.
        """
        path, params = _path(name) + "/range-test", {"metric": metric, "group": group}
        picture = self._transport.send(
            "GET", path, params=params, accept="image/svg+xml", wait=self._retry_for
        )
        return RangeTest.parse(self._json("GET", path, params=params), picture)

    def history(
        self,
        name: str,
        *,
        start: int | None = None,
        end: int | None = None,
        points: int | None = None,
        metrics: Sequence[str] | None = None,
        readings: bool = False,
        attempt: int | None = None,
    ) -> dict[str, Any]:
        """What was trained with beside what was measured: sealed values and metrics by step.

        Args:
            name: the session.
            start: the first step; by default the session's.
            end: the first step that is left out; by default the horizon.
            points: about how many steps of a long record are shown, extremes kept; 1000 by default.
            metrics: names; all that were reported by default.
            readings: each rank's own values too.
            attempt: an earlier life of the job; by default the newest.

        Returns:
            `{"steps": [...], "series": {"lr": [...]}, "metrics": {"loss": [...]}, ...}`; in
            metrics None is where nothing was measured, and "nan", "inf" and "-inf" are strings.
        """
        params = {
            "start": start,
            "end": end,
            "points": points,
            "metrics": None if metrics is None else ",".join(metrics),
            "readings": "true" if readings else None,
            "attempt": attempt,
        }
        return self._json("GET", _path(name) + "/history", params=params)

    def events(
        self, name: str, *, after: int = -1, follow: bool = False
    ) -> Iterator[dict[str, Any]]:
        """What has happened to a session, in order; each event has its number as `seq`.

        Args:
            name: the session.
            after: the number of the last event that is left out.
            follow: go on with what happens next, without an end. The connection is taken up again
                behind the last event when it is lost: none is missed, none comes twice.
        """
        path = _path(name) + "/events"
        if follow:
            return _record.follow(self._transport, path + "/stream", after, wait=self._retry_for)
        return _record.log(self._json, path, after)

    def export(self, name: str, file: str | os.PathLike[str]) -> None:
        """Write the whole record of a session into a file, for `import_session`.

        The file is there when all of it was written, and not before.
        """
        _record.export(self._transport, _path(name) + "/export", file)

    def import_session(
        self, file: str | os.PathLike[str], *, name: str | None = None
    ) -> SessionInfo:
        """Restore a session from what `export` wrote: values, state and events to the bit.

        Args:
            file: what `export` wrote.
            name: what the session is to be called, if not as it was.

        Raises:
            ConflictError: the name is taken.
            InvalidRequestError: it is no whole record; the message says at which line.
        """
        return SessionInfo.parse(_record.restore(self._transport, file, name), name)

    def realised(
        self,
        name: str,
        *,
        start: int | None = None,
        end: int | None = None,
        attempt: int | None = None,
    ) -> dict[str, Any]:
        """The description of a session that replays what another one has sealed, to the bit.

        Its schedules are tables of the values from `start` to before `end`, at most 100,000 of
        them. Send it to `POST /v1/sessions`, or give its `schedule` or `groups` to
        `create_session`; it replays on its own, and without a server a list of values does.
        """
        params = {"as": "table", "start": start, "end": end, "attempt": attempt}
        return self._json("GET", _path(name) + "/export", params=params)

    def schedules(self) -> dict[str, Any]:
        """The catalogue of schedule kinds, with their parameters."""
        return self._json("GET", "/v1/schedules")

    def version(self) -> dict[str, Any]:
        """Which server this is."""
        return self._json("GET", "/version")

    def close(self) -> None:
        """Close the sessions that were opened here, then the connections."""
        # All deliver at once: the wait must not grow with their number.
        for feed in list(self._feeds):
            feed.stop(CLOSE_SECONDS)
        for session in list(self._sessions):
            session.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Client:
        return self  # a handle, as its sessions are; and within a process the token holds

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(  # without the token: pickles lie about in files
            Client,
            timeout=self._transport.timeout,
            retry_for=self._retry_for,
            max_wait=self._max_wait,
            on_outage=self._on_outage,
            transport=self._transport.custom,
        )
        return make, (self.url,)

    def _open(
        self,
        info: SessionInfo,
        *,
        rank: int,
        lr_bounds: tuple[float, float] | None,
        stored: Bootstrap | None = None,
        prime: bool = True,
    ) -> Session:
        feed = Feed(
            self._transport,
            info,
            rank=rank,
            max_wait=self._max_wait,
            lr_bounds=checked_bounds(lr_bounds),
        )
        reopen = functools.partial(_reopen, self, rank=rank, lr_bounds=lr_bounds)
        bridge = None
        if self._on_outage.goes_on:
            bridge = Bridge(feed, self._on_outage, stored.curve if stored is not None else None)
            if prime:
                bridge.prime(info.horizon)
        session = Session(feed, reopen, self._on_notice, bridge=bridge)
        self._sessions.add(session)
        self._feeds.add(feed)
        return session

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return self._transport.json(method, path, body=body, params=params, wait=self._retry_for)


def _reopen(
    client: Client, info: SessionInfo, *, rank: int, lr_bounds: tuple[float, float] | None
) -> Session:
    """What a pickled session becomes: a new handle, with no network until it is used."""
    return client.follow(info, rank=rank, lr_bounds=lr_bounds)


def _path(name: str) -> str:
    return "/v1/sessions/" + quote(name, safe="")
