"""The composition root: settings, store, writer, service, app, uvicorn. Read this first."""

import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from functools import partial
from socket import AI_PASSIVE, SOCK_STREAM, getaddrinfo, socket
from ssl import SSLContext
from types import FrameType

import structlog
import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp

from pacesetter_service import __version__, failpoints, logs
from pacesetter_service.api.app import App, create_app
from pacesetter_service.api.browsers import Hosts
from pacesetter_service.api.rates import Rates
from pacesetter_service.api.tracing import TracingMissingError, traced
from pacesetter_service.complaints import bad_requests
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.dashboard.app import Dashboard
from pacesetter_service.encryption import UnusableCertificateError, encryption
from pacesetter_service.front_door import Limits, connections_within_reach, front_door
from pacesetter_service.memory import collect_seldom, share_arenas
from pacesetter_service.runtime import retention
from pacesetter_service.runtime.service import Keeping, Service
from pacesetter_service.runtime.threads import started
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.settings import Settings, mistakes_in, read_settings
from pacesetter_service.store.continuity import Continuity
from pacesetter_service.store.opening import open_store
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.store import Store
from pacesetter_service.turns import take_short_turns
from pacesetter_service.webhook import UnusableWebhookError, Webhook

ADVICE = "any caller that reaches this port may change every training; set PACESETTER_ADMIN_TOKEN"

OPEN = (
    "is reached from beyond this machine, and without tokens any caller there may change every"
    " training. Set PACESETTER_ADMIN_TOKEN (openssl rand -base64 32 makes one) and give each caller"
    " a token; or say that this is meant, with --insecure or PACESETTER_INSECURE=1; or listen on"
    " 127.0.0.1"
)

CONTINUITY_ADVICE = {
    "unmarked": "the file with -mark behind its name is missing or damaged, so nothing says that"
    " this is the newest state; trainings that go on ask to be restarted from a checkpoint",
    "went_back": "the database has fewer commits than it had: an older copy was put in its place,"
    " or its log (-wal) was damaged, cut or deleted; if you have the newer files, stop the service"
    " and put all of them back; else restart trainings from their checkpoints",
    "another": "this is not the database that was here before; if that was not meant, stop the"
    " service and put it back, with its -wal and -mark",
    "restored": "the database is a copy of the one that was served before, put back from a backup"
    " or moved; trainings that go on ask to be restarted from a checkpoint",
}

LAST_SECONDS = 5
"""Seconds that the rest of a stop may take once requests have had their time to finish."""

log = structlog.get_logger("pacesetter")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop; SIGTERM and SIGINT let open requests finish, within a bound."""
    settings = _settings_or_exit(sys.argv[1:] if arguments is None else arguments)
    if settings.admin_token is None and not settings.insecure and _reaches_beyond(settings.host):
        sys.stderr.write(f"pacesetter serve: --host: {settings.host!r} {OPEN}\n")
        sys.exit(2)
    share_arenas()
    take_short_turns()
    logs.configure(settings.log_level, settings.log_format)
    _arm_failpoints(settings.failpoints)
    try:
        tls = _tls(settings)
    except UnusableCertificateError as error:
        sys.exit(f"pacesetter serve: {error}")
    try:
        store = open_store(
            settings.database_url,
            min_free=settings.min_free_disk,
            migrates=settings.auto_migrate,
            listen_url=settings.listen_url,
        )
    except (UnusableDatabaseError, StorageUnavailableError) as error:
        sys.exit(f"pacesetter serve: {error}")
    _tell(store.continuity)
    writer = Writer(
        store,
        max_queued=settings.max_queued,
        max_cached=settings.max_cached_sessions,
        stall_after=settings.stall_after,
    )
    webhook = None
    writer.start()
    try:
        webhook = _webhook(settings, writer)
        _serve(settings, tls, store, writer)
    except (TracingMissingError, UnusableWebhookError, StorageUnavailableError) as error:
        sys.exit(f"pacesetter serve: {error}")
    finally:
        bad_requests.settle()
        writer.stop()
        if webhook is not None:
            webhook.stop()
        store.close()


def _arm_failpoints(orders: str | None) -> None:
    """Arm the failpoints that a test asks for, and log a warning about them."""
    if orders is None:
        return
    try:
        failpoints.arm(orders)
    except ValueError as error:
        sys.exit(f"pacesetter serve: --failpoints: {error}")
    log.warning("failpoints_armed", failpoints=orders, advice="this service fails on purpose")


def _webhook(settings: Settings, writer: Writer) -> Webhook | None:
    """Start sending alarms to the URL that the settings name, if they name one.

    Raises:
        UnusableWebhookError: No alarm could be sent from here.
    """
    if settings.webhook_url is None:
        return None
    secret = settings.webhook_secret
    webhook = Webhook(
        settings.webhook_url, None if secret is None else secret.get_secret_value(), writer.tally
    )
    writer.on_committed(webhook.listen)
    webhook.start()
    return webhook


def _reaches_beyond(host: str) -> bool:
    """Return whether another machine can reach a server that listens on a name or address."""
    try:
        found = getaddrinfo(host or None, 0, type=SOCK_STREAM, flags=AI_PASSIVE)
    except OSError:  # uvicorn reports it when it fails to listen
        return False
    addresses = (str(each[4][0]).partition("%")[0] for each in found)
    return not all(ipaddress.ip_address(each).is_loopback for each in addresses)


def _tell(found: Continuity) -> None:
    """Log whether the database is the one that was served before."""
    if found.reason in ("continued", "created"):
        log.info("database", epoch=found.epoch, reason=found.reason)
    else:
        advice = CONTINUITY_ADVICE[found.reason]
        log.warning(
            "new_epoch", epoch=found.epoch, reason=found.reason, lost=found.lost, advice=advice
        )


def _settings_or_exit(arguments: Sequence[str]) -> Settings:
    try:
        return read_settings(arguments)
    except ValidationError as error:
        for name, mistake in mistakes_in(error):
            sys.stderr.write(f"pacesetter serve: --{name.replace('_', '-')}: {mistake}\n")
        sys.exit(2)


class _Server(uvicorn.Server):
    """uvicorn that logs its address once it listens, and releases held calls when it stops."""

    def __init__(self, config: uvicorn.Config, app: App, *, is_open: bool, seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._open = is_open
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            last = threading.Timer(self._seconds, _end)
            last.daemon = True  # a process that ends sooner does not wait for it
            started(last)  # without it the stop has no bound, which is no reason not to stop
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._app.release()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM without dying of them: the store must still be closed."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                url = f"{'https' if self.config.ssl else 'http'}://{_written(host)}:{port}"
                log.info("serving", url=url, version=__version__)
                if self._open and not ipaddress.ip_address(host).is_loopback:
                    log.warning("open_to_everybody", url=url, advice=ADVICE)
        collect_seldom()


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end() -> None:
    """Exit immediately, whatever still runs: everything acknowledged is on the disk."""
    # On a separate thread: writing blocks if the reader of the log has stopped.
    saying = threading.Thread(target=_say_unfinished, daemon=True)
    with suppress(RuntimeError):  # the system starts no further thread
        saying.start()
        saying.join(1)
    os._exit(1)


def _say_unfinished() -> None:
    log.error("stopped_unfinished", advice="what was not finished was not acknowledged")
    sys.stderr.flush()


def _tls(settings: Settings) -> SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return encryption(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _keep(service: Service, archive_after: float | None, purge_after: float | None) -> None:
    """Archive and purge old sessions in the background, if the settings ask for it."""
    if archive_after is None and purge_after is None:
        return
    chore = partial(retention.keep_settings, service, archive_after, purge_after)
    service.janitor.keep(chore, retention.EVERY)


def _serve(settings: Settings, tls: SSLContext | None, store: Store, writer: Writer) -> None:
    keeping = Keeping(settings.archive_after_days, settings.purge_after_days)
    service = Service.over(store, writer, settings.admin_token, settings.max_held, keeping)
    _keep(service, keeping.archive_after, keeping.purge_after)
    app = create_app(
        service,
        max_body_size=settings.max_body_size,
        max_import_size=settings.max_import_size,
        feed_heartbeat=settings.feed_heartbeat,
        feed_patience=settings.feed_patience,
        max_feeds=settings.max_feeds,
        rates=Rates(settings.rate_per_token, settings.rate_per_address, settings.rate_burst),
        hosts=Hosts(settings.allowed_hosts.split(","), bound=settings.host),
        beside=Dashboard,
    )
    with traced(app) if settings.tracing else nullcontext(app) as door:
        _listen(settings, tls, app, door)
        service.finish()


def _listen(settings: Settings, tls: SSLContext | None, app: App, door: ASGIApp) -> None:
    """Serve an app behind its front door until told to stop."""
    named = {each.name: getattr(settings, each.name) for each in fields(Limits)}
    connections = connections_within_reach(settings.max_connections)
    limits = Limits(**{**named, "max_connections": connections})
    config = uvicorn.Config(
        door,
        http=front_door(limits),
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        # Longer than any client keeps an idle connection, so that we are never the first to close.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        server_header=False,
        proxy_headers=False,  # the service does not use the address of a caller
    )
    config.load()
    config.ssl = tls  # made here: uvicorn has no setting for the lowest TLS version
    seconds = settings.shutdown_timeout + LAST_SECONDS
    _Server(config, app, is_open=settings.admin_token is None, seconds=seconds).run()


if __name__ == "__main__":
    main()
