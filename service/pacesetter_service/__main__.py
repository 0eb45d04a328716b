"""The composition root: settings -> store -> ledger -> app -> uvicorn. Read this first."""

import gc
import ipaddress
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import socket

import structlog
import uvicorn
from pydantic import ValidationError

from pacesetter_service import __version__, logs
from pacesetter_service.api.app import App, create_app
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.ledger import Ledger
from pacesetter_service.settings import Settings, read_settings
from pacesetter_service.storage.engine import UnusableDatabaseError
from pacesetter_service.storage.store import Store

ADVICE = "whoever reaches this port may change every training; set PACESETTER_ADMIN_TOKEN"

log = structlog.get_logger("pacesetter")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop; SIGTERM and SIGINT let open requests finish."""
    settings = _settings_or_exit(sys.argv[1:] if arguments is None else arguments)
    logs.configure(settings.log_level, settings.log_format)
    try:
        store = Store(settings.database_url)
    except (UnusableDatabaseError, StorageUnavailableError) as error:
        sys.exit(f"pacesetter serve: {error}")
    ledger = Ledger(store, max_queued=settings.max_queued, max_cached=settings.max_cached_sessions)
    ledger.start()
    try:
        _serve(settings, store, ledger)
    finally:
        ledger.stop()
        store.close()


def _settings_or_exit(arguments: Sequence[str]) -> Settings:
    try:
        return read_settings(arguments)
    except ValidationError as error:
        for each in error.errors():
            name = "-".join(str(part) for part in each["loc"]).replace("_", "-")
            sys.stderr.write(f"pacesetter serve: --{name}: {each['msg']}\n")
        sys.exit(2)


class _Server(uvicorn.Server):
    """uvicorn, saying where it listens once it does, and holding no call when it is to stop."""

    def __init__(self, config: uvicorn.Config, app: App, *, is_open: bool) -> None:
        super().__init__(config)
        self._app = app
        self._open = is_open

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._app.release()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM without dying of them: the store is still to be closed."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                url = f"http://{host}:{port}"
                log.info("serving", url=url, version=__version__)
                if self._open and not ipaddress.ip_address(host).is_loopback:
                    log.warning("open_to_everybody", url=url, advice=ADVICE)
        # Full collections walk the whole heap of the frameworks; take it out of their sight.
        gc.collect()
        gc.freeze()


def _serve(settings: Settings, store: Store, ledger: Ledger) -> None:
    app = create_app(
        store,
        ledger,
        max_body_size=settings.max_body_size,
        max_import_size=settings.max_import_size,
        feed_heartbeat=settings.feed_heartbeat,
        feed_patience=settings.feed_patience,
        admin_token=settings.admin_token,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        # Longer than any client keeps an idle connection, so that we are never the first to close.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        server_header=False,
        proxy_headers=False,  # nobody asks where a call came from
    )
    _Server(config, app, is_open=settings.admin_token is None).run()


if __name__ == "__main__":
    main()
