"""A real server for tests: `serve()` anywhere, and under pytest the fixtures that use it.

The server runs in a thread of the test's process, on a free port of this machine, with its own
database. It needs `pacesetter[service]`; only the fixtures need pytest.

PYTEST_DONT_REWRITE: otherwise pytest warns a program that imports `serve` before it loads this
plugin.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pacesetter._client import Client
from pacesetter._service import load_service

if TYPE_CHECKING:
    import uvicorn

    from pacesetter_service.api.app import App

__all__ = ["Server", "serve"]

HOST = "127.0.0.1"
SHUTDOWN_SECONDS = 10


class Server:
    """A server that can be stopped and started again: it keeps its address and its data.

    ```python
    with serve() as server, Client(server.url) as client:
        session = client.session("mine", base_lr=0.1, schedule={"kind": "constant"})
        server.stop()  # from here on connections are refused
        server.start()
    ```

    Args:
        folder: Where the database is, or will be.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.

    Raises:
        ImportError: What the server needs is not installed, or this Python is older than 3.11.
    """

    def __init__(self, folder: Path) -> None:
        for each in ("pacesetter_service.api.app", "uvicorn"):
            load_service(each, "run the tests that use pacesetter.testing with a newer one")
        self._database_url = f"sqlite:///{folder / 'pacesetter.db'}"
        # Bound while this object exists, and never listening: no other process gets the port.
        self._held = _bound(0)
        self._port: int = self._held.getsockname()[1]
        self._running: contextlib.ExitStack | None = None
        self.url = f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start, and return when the server answers; a running server goes on."""
        from pacesetter_service.api.app import create_app  # noqa: PLC0415 - not the client's
        from pacesetter_service.runtime.service import Service  # noqa: PLC0415
        from pacesetter_service.runtime.writer import Writer  # noqa: PLC0415
        from pacesetter_service.store.sqlite import SqliteStore  # noqa: PLC0415

        if self._running is not None:
            return
        with contextlib.ExitStack() as stack:
            store = SqliteStore(self._database_url)
            stack.callback(store.close)
            writer = Writer(store)
            writer.start()
            stack.callback(writer.stop)
            app = create_app(Service.over(store, writer))
            stack.enter_context(_listening(app, _bound(self._port)))
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Stop, and return when the port is closed; a stopped server stays stopped.

        Calls in flight are answered first. What was acknowledged is in the database.
        """
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def close(self) -> None:
        """Stop for good, and give the port back."""
        self.stop()
        self._held.close()

    def __repr__(self) -> str:
        return f"<Server at {self.url}, {'stopped' if self._running is None else 'running'}>"


@contextlib.contextmanager
def serve(folder: Path | None = None) -> Iterator[Server]:
    """Run a server; it is stopped at the end.

    Args:
        folder: Where its database is kept; by default in a folder that is removed at the end.

    Raises:
        ImportError: What the server needs is not installed, or this Python is older than 3.11.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pacesetter-")))
        server = Server(folder)
        stack.callback(server.close)
        server.start()
        yield server


def _bound(port: int) -> socket.socket:
    """Take a port of this machine, without listening; 0 takes a free one."""
    taken = socket.socket()
    try:
        # For a port whose last connections are still closing, ...
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):  # ... and which is held meanwhile: not on Windows
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind((HOST, port))
    except BaseException:
        taken.close()
        raise
    return taken


@contextlib.contextmanager
def _listening(app: App, port: socket.socket) -> Iterator[None]:
    """Serve on a bound socket, which is closed at the end, from a thread."""
    server = _uvicorn(app)
    thread = threading.Thread(
        target=server.run, args=([port],), name="pacesetter-server", daemon=True
    )
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start: what it raised was printed above")
            time.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        thread.join()
        app.close()


def _uvicorn(app: App) -> uvicorn.Server:
    import uvicorn  # noqa: PLC0415 - not the client's

    from pacesetter_service.front_door import FrontDoor  # noqa: PLC0415

    class Releasing(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.release()  # calls that wait for ranks, and feeds, would delay it
            await super().shutdown(sockets)

    return Releasing(
        uvicorn.Config(
            app,
            http=FrontDoor,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=120,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )


try:
    import pytest
except ModuleNotFoundError:  # `serve()` does without
    pass
else:
    __all__ += ["pacesetter_client", "pacesetter_server"]

    @pytest.fixture
    def pacesetter_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        """Run a server for this test alone; `PACESETTER_URL` names it meanwhile."""
        with serve() as server:
            monkeypatch.setenv("PACESETTER_URL", server.url)
            yield server

    @pytest.fixture
    def pacesetter_client(pacesetter_server: Server) -> Iterator[Client]:
        """Return a client of `pacesetter_server`; its sessions are closed with it."""
        with Client(pacesetter_server.url) as client:
            yield client
