"""The client: the server's sessions, schedules and version, over one connection pool."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pacesetter._announcing import announce
from pacesetter._attempts import Branch, Opener
from pacesetter._bootstrap import Bootstrap
from pacesetter._bounds import Bounds, bounds_of, checked_bounds
from pacesetter._carrying import Carrying
from pacesetter._core import SessionCore
from pacesetter._errors import ServerUnavailableError
from pacesetter._info import SessionInfo
from pacesetter._notebook import sessions_at, shown
from pacesetter._notices import OnNotice
from pacesetter._opening import Opening, path_of
from pacesetter._operations import Operations
from pacesetter._outage import OutageFallback, OutagePolicy
from pacesetter._prefetcher import Prefetcher
from pacesetter._session import CLOSE_SECONDS, Session, core_of
from pacesetter._spec import Description
from pacesetter._sync_channel import SyncChannel
from pacesetter._transport import Transport

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self, Unpack  # of Python 3.11

    import httpx

DEFAULT_URL = "http://127.0.0.1:7070"

logger = logging.getLogger("pacesetter")


class Client(Operations, Carrying):
    """A connection to a Pacesetter server.

    ```python
    with Client() as client:
        session = client.session("vit-run-42", schedule={"kind": "cosine", "total_steps": 1000},
                                 base_lr=0.1)
        session.lr(0)
    ```

    Everything else that the server offers has a method too: orders such as `scale` and `hold`,
    `status` and `explain`, `columns` of the record, forks, templates, tokens. `AsyncClient` has the
    same ones, awaited. At the end of a notebook's cell it shows the sessions that changed last.

    Args:
        url: The server's address; without one `PACESETTER_URL`, else `http://127.0.0.1:7070`.
        timeout: Seconds that one exchange may take.
        retry_for: Seconds for which a call is retried while the server is away.
        max_wait: Seconds that a training waits for the server once its sealed values are used up,
            before `ServerUnavailableError`. Must be the same on all ranks.
        on_outage: What a training does when those values are used up and the server is away:
            `"wait"` for those seconds, `"hold"` the last value or follow the `"forecast"`, or an
            `OutagePolicy` with its bounds. The latter two are allowed only where one process
            decides for all: a training in one process, or `RemoteLR` under torch.distributed in its
            usual mode.
        on_notice: Called with each `Notice` to the trainer of a session opened here, see
            `Session.on_notice`; without it they are logged.
        actor: Who gives the orders made here, for the record; where there is a token, it says so.
        token: The access token, where the server asks for one; without it `PACESETTER_TOKEN`. It
            goes to that address only, and into no log, error or pickle: a copy in another process
            takes the environment's.
        transport: An httpx transport in place of the network, for tests and special wiring.

    Every method raises `ServerUnavailableError` when the server stays away for `retry_for` seconds,
    `APIError` when it refuses (`AuthenticationError` and `PermissionDeniedError` where that is
    because of the token), and `InvalidAnswerError` when it answers nonsense.

    Raises:
        ValueError: An argument makes no sense, the URL has a password in it, the token cannot be
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
        actor: str | None = None,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        checked_seconds("retry_for", retry_for)
        checked_seconds("max_wait", max_wait)
        url = url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
        self._transport = Transport(url, timeout=timeout, token=token, transport=transport)
        self.actor = actor
        self._retry_for = retry_for
        self._json = functools.partial(self._transport.json, wait=retry_for)
        self._max_wait = max_wait
        self._on_outage = OutagePolicy.of(on_outage)
        self._on_notice = on_notice
        self._for_all = False
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._prefetchers: weakref.WeakSet[Prefetcher] = weakref.WeakSet()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    @property
    def longest_wait(self) -> float:
        """The most seconds for which a call may wait for the server."""
        return max(self._retry_for, self._max_wait)

    def create_session(
        self,
        name: str,
        *,
        rank: int = 0,
        lr_bounds: tuple[float, float] | None = None,
        resume: str = "error",
        **description: Unpack[Description],
    ) -> Session:
        """Create a session, or open it when it was created with the same description before.

        Args:
            name: 1 to 128 of `A-Za-z0-9._-`, unique on the server.
            rank: The session's rank that reports from here.
            lr_bounds: `(low, high)`; a learning rate outside is refused, whatever the server says.
                By default up to a thousand times the largest of the session's base rates and its
                `limits.max_lr`, or of 1 where it has none.
            resume: What to do if the session was trained before, see `session`.
            **description: What the session is, such as
                `base_lr=0.1, schedule={"kind": "constant"}`; `pacesetter.Description` lists every
                keyword.

        Raises:
            ConflictError: The name is taken by a session of another description.
            InvalidRequestError: The description is refused; `.errors` says where.
            TypeError: Some of the keywords do not describe a session.
        """
        checked_bounds(lr_bounds)
        opening = self._opening(name, rank, resume)
        return self._open(opening.create(description), rank, lr_bounds, opening=opening)

    def session(
        self,
        name: str,
        *,
        rank: int = 0,
        lr_bounds: tuple[float, float] | None = None,
        step: int | None = None,
        attempt_key: str | None = None,
        bootstrap: str | Path | None = None,
        resume: str = "error",
        continues: str | None = None,
        **spec: Unpack[Description],
    ) -> Session:
        """Open a session; with a description (as for `create_session`), create it if need be.

        A session that was trained before, by another job than this one, is opened like any other;
        `resume` says what happens when a step would be trained again without a checkpoint loaded or
        `step` given. A job that its launcher has started again begins again by itself, in a new
        attempt; docs/resume.md says how it is recognised.

        Args:
            name: The session's name.
            rank: The session's rank that reports from here.
            lr_bounds: `(low, high)`; a learning rate outside is refused, whatever the server says.
                By default up to a thousand times the largest of the session's base rates and its
                `limits.max_lr`, or of 1 where it has none.
            step: Go back to this step, as after loading a checkpoint; see `Session.restart`.
            attempt_key: The key that all ranks of that restart share.
            bootstrap: A file of `export_bootstrap`, to start by when the server is away for
                `retry_for` seconds; needs `on_outage` to be `"hold"` or `"forecast"`.
            resume: `"error"` refuses with `ResumeError`; `"restart"` begins again where this
                training begins, in a new attempt; `"continue"` follows the sealed values as they
                are. Steps that were never handed out are trained in any case.
            continues: The session whose past this one shares, to train longer or by another
                description from a checkpoint. `spec` says what differs. The session is created when
                its first step is known: by `step=`, by `Session.restart`, or by loading a
                checkpoint of that session into `RemoteLR`.
            **spec: The same as for `create_session`.

        Raises:
            NotFoundError: There is no such session, and no description to create it by.
            ConflictError: The description given differs from the session's.
            StaleAttemptError: A later attempt has taken over from the one of that key.
        """
        if attempt_key is not None and step is None:
            raise ValueError(f"attempt_key={attempt_key!r} without step=: say where to go back to")
        if bootstrap is not None and (step is not None or not self._on_outage.goes_on):
            raise ValueError(
                "bootstrap= starts a training without the server: it needs a Client with "
                "on_outage='hold' or 'forecast', and cannot go back to a step"
            )
        if bootstrap is not None and continues is not None:
            raise ValueError("continues= needs the server: leave bootstrap= out")
        opening = self._opening(name, rank, resume)
        stored = branch = None
        if bootstrap is not None:
            info, stored = self._found_or_stored(opening, bootstrap, lr_bounds, spec)
        elif continues is None:
            info = opening.find(spec)
        else:
            info, branch = opening.find_branch(continues, spec)
        session = self._open(info, rank, lr_bounds, opening=opening, branch=branch, stored=stored)
        if step is not None:
            session.restart(step, key=attempt_key)
        return session

    @contextlib.contextmanager
    def for_all_ranks(self) -> Iterator[None]:
        """Open sessions for all ranks, whatever this process's own rank is: for integrations."""
        self._for_all = True
        try:
            yield
        finally:
            self._for_all = False

    def _opening(self, name: str, rank: int, resume: str) -> Opening:
        return Opening(self._json, self.url, name, rank=rank, resume=resume, for_all=self._for_all)

    def _found_or_stored(
        self, opening: Opening, path: str | Path, lr_bounds: Bounds | None, spec: Description
    ) -> tuple[SessionInfo, Bootstrap | None]:
        stored = Bootstrap.read(path, opening.name, checked_bounds(lr_bounds))
        try:
            return opening.find(spec), None
        except ServerUnavailableError as error:
            logger.warning("session %s starts by %s: %s", opening.name, path, error)
            return stored.info, stored

    def export_bootstrap(self, name: str, path: str | Path, *, count: int = 10_000) -> None:
        """Write what a training needs to start while the server is away.

        Args:
            name: The name of a session that exists on the server.
            path: The JSON file to write; an existing file is replaced.
            count: How many steps of the forecast, from the first step that is not sealed.
        """
        described = self._json("GET", path_of(name))
        horizon = SessionInfo.parse(described, name).horizon
        Bootstrap.write(path, described, self.lr(name, horizon, count=count))

    def follow(
        self, info: SessionInfo, *, rank: int = 0, lr_bounds: tuple[float, float] | None = None
    ) -> Session:
        """Return a handle on a session that another process has opened; ask the server nothing."""
        return self._open(info, rank, lr_bounds, prime=False)

    def close(self) -> None:
        """Close the sessions that were opened here, then the connections."""
        # All deliver simultaneously: the wait must not grow with their number.
        for session in list(self._sessions):
            session._say_if_over()  # noqa: SLF001 - before its thread is stopped
        dropped = [each for each in self._prefetchers if each.is_left]
        for prefetcher in list(self._prefetchers):
            prefetcher.stop(CLOSE_SECONDS)
        for session in list(self._sessions):
            session.close()
        for prefetcher in dropped:
            prefetcher.join()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def _repr_html_(self) -> str:
        return shown(lambda: sessions_at(self._transport), self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Client:
        return self  # a handle, as its sessions are; and within a process the token holds

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(  # without the token: pickles are left in files
            Client,
            timeout=self._transport.timeout,
            retry_for=self._retry_for,
            max_wait=self._max_wait,
            on_outage=self._on_outage,
            actor=self.actor,
            transport=self._transport.custom,
        )
        return make, (self.url,)

    def _announcing(self, opening: Opening | None) -> Callable[[SessionInfo, int], None] | None:
        """Return what announces that a training begins, if this process speaks for all ranks."""
        if opening is None or not opening.leads:
            return None
        return functools.partial(announce, self.url)

    def _open(
        self,
        info: SessionInfo,
        rank: int,
        lr_bounds: Bounds | None,
        *,
        stored: Bootstrap | None = None,
        prime: bool = True,
        opening: Opening | None = None,
        opener: Opener | None = None,
        branch: Branch | None = None,
    ) -> Session:
        if opening is not None:
            opener = opening.opener(info if stored is None else None)
        channel = SyncChannel(self._transport, rank, bounds_of(info, lr_bounds))
        prefetcher = Prefetcher(channel, info, max_wait=self._max_wait, met=stored is None)
        fallback = None
        if self._on_outage.goes_on:
            fallback = OutageFallback(prefetcher, self._on_outage, stored)
            if prime:
                fallback.prime(info.horizon)
        core = SessionCore(
            prefetcher,
            self._on_notice,
            fallback=fallback,
            training=opening.training if opening is not None else None,
            opener=opener,
            branch=branch,
            announce=self._announcing(opening),
        )
        session = Session(core, functools.partial(_reopen, self, rank, lr_bounds), self._look)
        self._sessions.add(session)
        self._prefetchers.add(prefetcher)
        return session


def checked_seconds(name: str, seconds: float) -> float:
    """Return a number of seconds that is a valid wait.

    Raises:
        ValueError: It is not.
    """
    if not seconds >= 0:  # refuses NaN too
        raise ValueError(f"{name}={seconds}: give seconds, 0 or more")
    return seconds


def _reopen(
    client: Client,
    rank: int,
    lr_bounds: Bounds | None,
    info: SessionInfo,
    opener: Opener | None,
    branch: Branch | None,
    sent_to: int | None,
) -> Session:
    """Return a new handle for a pickled session, with no network until it is used."""
    session = client._open(  # noqa: SLF001
        info, rank, lr_bounds, prime=False, opener=opener, branch=branch
    )
    core_of(session).sent_to = sent_to
    return session
