"""What the server says about a session, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pacesetter._errors import misfit


@dataclass(frozen=True)
class SessionInfo:
    """A session as the server described it.

    Attributes:
        name: Unique on the server.
        spec: What it was created with, with defaults filled in.
        status: `active`, `finished` or `archived`.
        attempt: The current attempt, counted from 1.
        attempt_key: What all ranks of it share; empty if its opener gave none.
        horizon: The first step that was not sealed yet.
        revision: Counts changes to the session.
        series: Names of its outputs, for instance `("lr",)` or `("body.lr", "head.lr")`.
        max_lookahead: The most steps sealed ahead; None without a limit.
        max_window: The most steps in one window.
        epoch: The epoch of the server's database; None from a server that states none.
        state: What has become of it: its status, or `failed`, or `silent`; its status where the
            server says no more.
        plan_end: The first step after its plan; None if that has no end.
    """

    name: str
    spec: Mapping[str, Any]
    status: str
    attempt: int
    horizon: int
    revision: int
    series: tuple[str, ...]
    max_lookahead: int | None
    max_window: int
    attempt_key: str = ""
    epoch: str | None = None
    state: str = ""
    plan_end: int | None = None
    created_at: str = field(default="", compare=False)
    changed_at: str = field(default="", compare=False)
    ended: Mapping[str, Any] | None = field(default=None, compare=False)
    warnings: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, answer: Mapping[str, Any], name: str | None = None) -> SessionInfo:
        """Read the server's JSON about a session, which must be the one of `name` if that is given.

        Raises:
            InvalidAnswerError: A field is missing or of the wrong type.
        """
        series = _get(answer, "series", list)
        if not series or not all(isinstance(name, str) for name in series):
            raise misfit(f"the server described a session with the series {series!r}")
        if name not in {None, answer.get("name")}:
            raise misfit(
                f"the server described session {answer.get('name')!r} when asked for {name!r}"
            )
        lookahead, end = answer.get("max_lookahead"), answer.get("plan_end")
        return cls(
            name=_get(answer, "name", str),
            spec=_get(answer, "spec", dict),
            status=_get(answer, "status", str),
            attempt=_get(answer, "attempt", int),
            horizon=_get(answer, "horizon", int),
            revision=_get(answer, "revision", int),
            series=tuple(series),
            max_lookahead=None if lookahead is None else _get(answer, "max_lookahead", int),
            max_window=max(1, _get(answer, "max_window", int)),
            attempt_key=_get({"attempt_key": "", **answer}, "attempt_key", str),
            epoch=None if answer.get("epoch") is None else _get(answer, "epoch", str),
            state=_get({"state": answer.get("status"), **answer}, "state", str),
            plan_end=None if end is None else _get(answer, "plan_end", int),
            created_at=_get({"created_at": "", **answer}, "created_at", str),
            changed_at=_get({"changed_at": "", **answer}, "changed_at", str),
            ended=None if answer.get("ended") is None else _get(answer, "ended", dict),
            warnings=tuple(_get({"warnings": [], **answer}, "warnings", list)),
        )

    def look_again(self, look: Callable[..., Any]) -> None:
        """Set the function that asks for the session's status when a notebook shows this."""
        object.__setattr__(self, "_look", look)

    def _repr_html_(self) -> str:
        from pacesetter import _notebook  # noqa: PLC0415 - it knows this module

        look = self.__dict__.get("_look")
        return _notebook.shown(lambda: _notebook.session_card(self, look), self)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_look", None)  # a copy asks no server
        return state

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of its groups, in order; empty when it has none."""
        return tuple(name.removesuffix(".lr") for name in self.series if name.endswith(".lr"))

    @property
    def own_laws(self) -> frozenset[str]:
        """The groups that have a schedule of their own; all others share the session's."""
        groups = self.spec.get("groups") or {}
        return frozenset(
            name for name in groups if (groups[name] or {}).get("schedule") is not None
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to report for its controllers, each once; a view's is the one it is `of`."""
        controllers = self.spec.get("controllers") or ()
        watched = [str(c["metric"]) for c in controllers if "metric" in c]
        described = self.spec.get("metrics") or {}
        sources = (str((described.get(name) or {}).get("of") or name) for name in watched)
        return tuple(dict.fromkeys(sources))

    @property
    def ranks(self) -> int:
        """The number of processes that report to it."""
        ranks = self.spec.get("ranks", 1)
        return ranks if type(ranks) is int else 1

    @property
    def start_step(self) -> int:
        """The first step of the session."""
        start = self.spec.get("start_step", 0)
        return start if type(start) is int else 0

    @property
    def first_step(self) -> int:
        """The first step that is the session's own: of a fork, the one where it branched off."""
        step = (self.spec.get("forked_from") or {}).get("step")
        return step if type(step) is int else self.start_step

    @property
    def is_fork(self) -> bool:
        """Whether it shares the past of another session."""
        return bool(self.spec.get("forked_from"))

    def within_plan(self, start: int) -> int:
        """Return how many steps from `start` on a training to the plan's end reads.

        The step after the last is among them: a scheduler sets its rate before the loop ends. Later
        steps are fetched when they are asked for, so that nothing is sealed in vain. For those, and
        where the plan has no end, the number is 0.
        """
        return 0 if self.plan_end is None else max(self.plan_end + 1 - start, 0)

    def branched_off(self, name: str) -> int | None:
        """Return the first step that it does not share with a session that it descends from.

        None if it does not. Over several generations the earliest branching counts.
        """
        origin, step = self.spec.get("forked_from"), None
        while origin:
            step = origin["step"] if step is None else min(step, origin["step"])
            if origin["session"] == name:
                return int(step)
            origin = origin.get("forked_from")
        return None

    def base_lr(self, group: str | None) -> float | None:
        """Return the base learning rate of a group (None: of an ungrouped session)."""
        holder = self.spec if group is None else (self.spec.get("groups") or {}).get(group, {})
        base = holder.get("base_lr")
        return float(base) if isinstance(base, int | float) else None


def _get(answer: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    value = answer.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise misfit(f"the server described a session with {key}={value!r}")
    return value
