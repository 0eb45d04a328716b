"""The calls of trainers, operators and readers with their answers, recorded call by call."""

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx


class History:
    """Calls and answers, in order; times are in seconds, by the machine's monotonic clock."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def keep(self, path: Path) -> None:
        """Write it to a file, a call a line."""
        path.write_text("".join(json.dumps(each) + "\n" for each in list(self.calls)))

    @property
    def answered(self) -> int:
        """How many calls had a good answer."""
        return sum(each["status"] in (200, 201) for each in list(self.calls))


class Caller:
    """A caller that calls any of several addresses, and records the answers."""

    def __init__(self, history: History, who: str, urls: list[str], timeout: float) -> None:
        self._history, self._who, self._urls = history, who, urls
        self.dice = random.Random(who)
        self.timeout = timeout
        self._http = httpx.Client(timeout=timeout, trust_env=False, verify=False)

    def call(
        self,
        kind: str,
        session: str,
        method: str,
        path: str,
        sent: dict[str, Any] | None = None,
        key: str = "",
    ) -> dict[str, Any]:
        """Call once; an answer that does not come has no status."""
        noted: dict[str, Any] = {
            "who": self._who,
            "kind": kind,
            "session": session,
            "sent": sent or {},
            "key": key,
            "bound": self.timeout,
            "begin": time.monotonic(),
            "status": None,
            "got": None,
        }
        headers = {"Pacesetter-Actor": self._who, **({"Idempotency-Key": key} if key else {})}
        url = self.dice.choice(self._urls)
        try:
            answer = self._http.request(
                method,
                f"{url}/v1/sessions{path}",
                json=sent if method == "POST" else None,
                params=sent if method == "GET" else None,
                headers=headers,
            )
            noted["status"] = answer.status_code
            noted["got"] = answer.text if kind == "record" else answer.json()
        except (httpx.TransportError, json.JSONDecodeError):
            noted["status"] = None
        noted["end"] = time.monotonic()
        self._history.calls.append(noted)
        return noted

    def insist(self, *call: Any, stop: threading.Event, **more: Any) -> dict[str, Any]:
        """Call until there is any answer, or the caller is told to stop."""
        while True:
            noted = self.call(*call, **more)
            if noted["status"] not in (None, 503, 507) or stop.is_set():
                return noted
            stop.wait(0.02)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()
