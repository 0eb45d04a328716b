"""A lying proxy: it passes calls on, and breaks one promise of the service behind it."""

import http.client
import json
import math
from collections.abc import Callable
from typing import Any

from little_servers import Asked, answer
from serving import PATIENCE

Said = tuple[int, bytes]


class Liar:
    """Passes calls on to a service; once the load is under way it lies, once or more.

    Attributes:
        told: How often it has lied.
    """

    def __init__(self, url: str, lie: str) -> None:
        self._upstream = url.removeprefix("http://")
        self._lie: Callable[[Asked], Said | None] = getattr(self, f"_break_{lie.lower()}")
        self._seen = 0
        self._newest: dict[str, int] = {}
        self._kept: list[Asked] = []
        self.told = 0

    def __call__(self, asked: Asked) -> bytes:
        """Answer a call, truthfully or not."""
        self._seen += 1
        self.told += (said := self._lie(asked) if self._seen > 20 else None) is not None
        status, body = said or self._truth(asked)
        return answer(status, body, content_type="application/json")

    def _truth(self, asked: Asked, body: bytes | None = None, key: str = "") -> Said:
        kept = ("content-type", "idempotency-key", "pacesetter-actor")
        headers = {name: value for name, value in asked.headers.items() if name in kept}
        headers |= {"idempotency-key": key} if key else {}
        upstream = http.client.HTTPConnection(self._upstream, timeout=PATIENCE)
        try:
            upstream.request(
                asked.method, asked.target, asked.body if body is None else body, headers
            )
            found = upstream.getresponse()
            content = found.read()
        finally:
            upstream.close()
        opens = asked.method == "POST" and "/attempts" in asked.target
        if opens and found.status in (200, 201):
            self._newest[asked.target.split("/")[3]] = json.loads(content)["attempt"]
        return found.status, content

    def _is(self, asked: Asked, what: str) -> bool:
        return self.told == 0 and what in asked.target

    def _changed(self, said: Said, change: Callable[[Any], None]) -> Said:
        got = json.loads(said[1])
        change(got)
        return said[0], json.dumps(got).encode()

    def _break_p1(self, asked: Asked) -> Said | None:
        """A value differs in its last bit."""
        if not self._is(asked, "/sync"):
            return None

        def nudge(got: Any) -> None:
            got["series"]["lr"][0] = math.nextafter(got["series"]["lr"][0], 2.0)

        said = self._truth(asked)
        return self._changed(said, nudge) if said[0] == 200 else None

    def _break_p2(self, asked: Asked) -> Said | None:
        """An order is said to hold from an earlier step than it does."""
        if not self._is(asked, "/actions"):
            return None
        said = self._truth(asked)
        earlier = lambda got: got.update(effective_step=got["effective_step"] - 1)  # noqa: E731
        return self._changed(said, earlier) if said[0] == 201 else None

    def _break_p3(self, asked: Asked) -> Said | None:
        """Reports are acknowledged, and dropped."""
        body = json.loads(asked.body or b"{}")
        fresh = any(each["metrics"]["loss"] >= 0 for each in body.get("reports", ()))
        if not self._is(asked, "/sync") or not fresh:
            return None
        said = self._truth(asked, json.dumps({**body, "reports": []}).encode())
        return said if said[0] == 200 else None

    def _break_p4(self, asked: Asked) -> Said | None:
        """An order counts twice."""
        if not self._is(asked, "/actions"):
            return None
        self._truth(asked, key="another")
        return self._truth(asked)

    def _break_p5(self, asked: Asked) -> Said | None:
        """A call gets an answer without any advice."""
        return (500, b"{}") if self._is(asked, "/sync") else None

    def _break_p6(self, asked: Asked) -> Said | None:
        """An attempt begins at another step than its checkpoint's."""
        if not self._is(asked, "/attempts"):
            return None
        body = json.loads(asked.body)
        return self._truth(asked, json.dumps({**body, "step": body["step"] - 1}).encode())

    def _break_p7(self, asked: Asked) -> Said | None:
        """A caller with an old attempt is accepted as the new one."""
        newest = self._newest.get(asked.target.split("/")[3], 1)
        body = json.loads(asked.body or b"{}")
        if "/sync" not in asked.target or body["attempt"] >= newest:
            return None
        report = {"step": 0, "metrics": {"loss": -1.0}}
        return self._truth(asked, json.dumps({"attempt": newest, "reports": [report]}).encode())

    def _break_p8(self, asked: Asked) -> Said | None:
        """An explanation names another author."""
        if not self._is(asked, "/explain"):
            return None

        def blame(got: Any) -> None:
            got["series"]["lr"]["cause"] = {"order": {"key": "order-0", "actor": "nobody"}}

        said = self._truth(asked)
        return self._changed(said, blame) if said[0] == 200 else None

    # Where a controller steers --------------------------------------------------------------------

    def _break_hearing(self, asked: Asked) -> Said | None:
        """Reports of rank 1 are acknowledged, and passed on only some windows later."""
        body = json.loads(asked.body or b"{}")
        if "/sync" in asked.target and body.get("rank") == 1 and body.get("reports"):
            self._kept.append(asked)
            late = [self._kept.pop(0)] if len(self._kept) > 4 else []
            for each in late:
                self._truth(each)
            return self._truth(asked, json.dumps({**body, "reports": []}).encode())
        return None

    def _break_reading(self, asked: Asked) -> Said | None:
        """A reported loss is changed on its way."""
        body = json.loads(asked.body or b"{}")
        if not self._is(asked, "/sync") or not body.get("reports") or body.get("rank") != 1:
            return None
        body["reports"][0]["metrics"]["loss"] += 1.0
        return self._truth(asked, json.dumps(body).encode())

    def _break_holding(self, asked: Asked) -> Said | None:
        """A trainer's call is passed on as a reader's, so that its steps can be taken back."""
        body = json.loads(asked.body or b"{}")
        if "/sync" not in asked.target or "progress" not in body:
            return None
        self._truth(asked, json.dumps({**body, "want": None}).encode())
        said = self._truth(asked, json.dumps({"want": body["want"]}).encode())
        return said if said[0] == 200 else None

    def _break_forking(self, asked: Asked) -> Said | None:
        """A fork begins a step earlier than requested."""
        if "/fork" not in asked.target:  # of each fork: some are never read
            return None
        body = json.loads(asked.body)
        said = self._truth(asked, json.dumps({**body, "step": body["step"] - 1}).encode())
        return said if said[0] == 201 else None

    def _break_inheriting(self, asked: Asked) -> Said | None:
        """A fork begins at another rate than its parent's at that step."""
        if "/fork" not in asked.target:  # of each fork: some are never read
            return None
        body = {**json.loads(asked.body), "description": {"base_lr": 0.75}}
        said = self._truth(asked, json.dumps(body).encode())
        return said if said[0] == 201 else None
