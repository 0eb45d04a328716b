"""Alarms of sessions, sent to a URL: signed, in order, and never in a trainer's way.

The writer puts an alarm into a queue and goes on. A separate thread sends it, and retries while the
receiver is away. Alarms that do not fit into the queue, or that the receiver does not accept in
time, are counted and logged.
"""

import hmac
import queue
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from secrets import token_hex
from time import time
from typing import Literal

import httpx
import structlog
from pydantic_core import to_json

from pacesetter_service.complaints import Complaints
from pacesetter_service.core.events import Decided, Logged, Noticed, RateDeviated
from pacesetter_service.runtime.tally import Tally
from pacesetter_service.store.port import Changes

MOST_WAITING = 1_000
"""The most alarms that wait; further ones are dropped."""

TRIES = 8
"""How often sending an alarm is tried; the last time after about two minutes."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try, doubled for each later one, and the longest pause."""

TIMEOUT = 10.0
"""Seconds that the receiver has for each phase of a request."""

LAST_SECONDS = 2.0
"""Seconds that sending an alarm may still take when the service stops."""

SIGNATURE = "Pacesetter-Signature"

COME_AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 after which an alarm is sent again."""

log = structlog.get_logger("pacesetter.webhook")

complaints = Complaints(lambda **details: log.warning("webhook", **details))
"""Complaints about the receiver: while it is away, it must not fill the log."""

Outcome = Literal["delivered", "failed", "dropped"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should look at.

    Attributes:
        id: Its id; the same whenever it is sent again.
        kind: `rate_deviated`, the code of a notice, or a controller's advice.
        session: The name of the session.
        attempt: Its attempt.
        step: The step that it is about; None if it is about none.
        text: What happened, for people.
        created_at: When it was recorded; ISO 8601, in UTC.
    """

    id: str
    kind: str
    session: str
    attempt: int
    step: int | None
    text: str
    created_at: str


_PROCESS = token_hex(8)
_numbers = count(1)


def alarms_in(batch: Sequence[Changes]) -> Iterator[Alarm]:
    """Return the alarms among the events of some changes."""
    for changes in batch:
        for event in changes.log:
            kind = _kind_of(event)
            if kind is not None:
                session = changes.stored.session
                yield Alarm(
                    f"{_PROCESS}-{next(_numbers)}",
                    kind,
                    session.spec.name,
                    session.attempt.number,
                    event.from_step,
                    event.text(session.spec),
                    datetime.now(UTC).isoformat(timespec="milliseconds"),
                )


def _kind_of(event: Logged) -> str | None:
    match event:
        case RateDeviated():
            return event.kind
        case Noticed(code=code):
            return code
        case Decided(advice=advice):
            return advice
    return None


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature header: the time, and the HMAC-SHA256 of time, dot and body."""
    signed = hmac.new(secret.encode(), b"%d." % timestamp + body, sha256).hexdigest()
    return f"t={timestamp},v1={signed}"


class UnusableWebhookError(Exception):
    """No alarm could be sent from here; the message says what to do."""


def _client() -> httpx.Client:
    """Return a client that sends alarms by the proxies and authorities of the environment.

    Raises:
        UnusableWebhookError: One of them cannot be used.
    """
    try:
        # A redirect must not lead an alarm, and its signature, somewhere else.
        return httpx.Client(timeout=TIMEOUT, follow_redirects=False)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise UnusableWebhookError(
            f"--webhook-url: no alarm could be sent, by the environment ({reason}). HTTPS_PROXY,"
            " HTTP_PROXY and ALL_PROXY name a proxy, as http://host:port, and NO_PROXY the hosts"
            " that need none; SSL_CERT_FILE and SSL_CERT_DIR name PEM files with certificates of"
            " authorities, which the service's user can read"
        ) from error


class Webhook:
    """Sends alarms to one URL; `start` and `stop` begin and end it."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        tally: Tally,
        *,
        most_waiting: int = MOST_WAITING,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """Set up without sending.

        Args:
            url: Where alarms go, `http://` or `https://`.
            secret: The key that they are signed with; without one, they are not signed.
            tally: Counts what became of them.
            most_waiting: The most alarms that wait; further ones are dropped.
            first_pause: Seconds before the second try.

        Raises:
            UnusableWebhookError: No alarm could be sent from here.
        """
        self._http = _client()  # here, and not on the thread, whose end no operator would notice
        self._url = url
        self._secret = secret
        self._tally = tally
        self._first_pause = first_pause
        self._queue: queue.Queue[Alarm | None] = queue.Queue(most_waiting)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending: alarms that are not sent yet are dropped, counted and logged."""
        self._ended.set()
        with suppress(queue.Full):  # a full queue wakes the thread anyway
            self._queue.put_nowait(None)
        self._thread.join(LAST_SECONDS)
        complaints.settle()

    def listen(self, batch: Sequence[Changes]) -> None:
        """Queue the alarms of committed changes; the writer calls this, and it never waits."""
        try:
            for alarm in alarms_in(batch):
                try:
                    self._queue.put_nowait(alarm)
                except queue.Full:
                    self._note("dropped", alarm, reason="too many alarms wait")
        except Exception:  # the changes are committed, whatever becomes of their alarms
            log.exception("alarms_lost")

    def _run(self) -> None:
        with self._http as http:
            while not (self._ended.is_set() and self._queue.empty()):
                alarm = self._queue.get()
                if alarm is None:
                    continue
                if self._ended.is_set():
                    self._note("dropped", alarm, reason="the service stops")
                    continue
                try:
                    self._deliver(http, alarm)
                except Exception as error:  # the next alarm may still get through
                    log.exception("webhook_failed")
                    self._note("failed", alarm, reason=type(error).__name__)

    def _deliver(self, http: httpx.Client, alarm: Alarm) -> None:
        body, reason = to_json(asdict(alarm)), ""
        for tried in range(TRIES):
            pause = min(self._first_pause * 2 ** (tried - 1), LONGEST_PAUSE) if tried else 0.0
            # With jitter, so that many services do not call a receiver simultaneously.
            if self._ended.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 - no secret
                break
            try:
                with http.stream("POST", self._url, content=body, headers=self._said(body)) as got:
                    status = got.status_code  # its body is ignored, however long
            except httpx.TransportError as error:
                reason = type(error).__name__
                continue
            if 200 <= status < 300:
                self._tally.alarms["delivered"] += 1
                return
            reason = f"status {status}"
            if status < 500 and status not in COME_AGAIN:
                break
        self._note("failed", alarm, reason=reason or "the service stops")

    def _said(self, body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", "user-agent": "pacesetter"}
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, int(time()), body)
        return headers

    def _note(self, outcome: Outcome, alarm: Alarm, reason: str) -> None:
        self._tally.alarms[outcome] += 1
        complaints.tell(f"alarm_{outcome}", alarm=alarm.kind, session=alarm.session, reason=reason)
