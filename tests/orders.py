"""Hypothesis strategies of operators' orders, and helpers of the tests of orders."""

from typing import Any

from hypothesis import strategies as st

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Cancel, Command, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Event, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec

EASES = ["linear", "cosine", "constant", "geometric", {"kind": "power", "power": 0.5}]

MOMENTUM = {
    "kind": "channels",
    "laws": {
        "lr": {"kind": "cosine", "total_steps": 60, "min_lr": 0.001},
        "momentum": {"kind": "ramp", "start": 0.95, "end": 0.85, "steps": 30},
    },
}

LAWS = [
    {"kind": "cosine", "total_steps": 40},
    {"kind": "exponential", "gamma": 0.97},
    {"kind": "linear", "total_iters": 20},
    {"kind": "constant"},
    MOMENTUM,
]

steps = st.integers(1, 30)
rates = st.one_of(st.sampled_from([0.0, 1e-3, 0.05, 0.3]), st.floats(1e-6, 2.0))


def bodies(groups: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Draw actions as an operator would send them; some make no sense."""

    def action(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"kind": st.just(kind)}, optional=fields)

    def complete(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"kind": st.just(kind), **fields})

    eases = st.sampled_from(EASES)
    some = st.one_of(
        complete("set", lr=rates, over=st.integers(0, 12), ease=eases),
        complete("scale", factor=st.floats(0.1, 10)),
        complete("scale", factor=st.sampled_from([1e-200, 1e200])),
        complete("cooldown", steps=steps, to_fraction=st.floats(0, 1), ease=eases),
        complete("cooldown", until=st.integers(0, 90), to=rates),
        complete("rewarm", steps=steps, factor=st.floats(0, 1)),
        complete("hold"),
        complete("release"),
        complete(
            "replace",
            schedule=st.sampled_from(LAWS),
            clock=st.sampled_from(["local", "global"]),
            value=st.sampled_from(["base", "level", "continue"]),
        ),
        complete("revert"),
    )
    if groups:
        names = st.lists(st.sampled_from(groups), min_size=1, unique=True)
        some |= st.builds(lambda body, chosen: {**body, "groups": chosen}, some, names)
    retime = st.builds(
        lambda first, more: {**first, **more},
        complete("retime", total_steps=st.integers(1, 120)),
        st.fixed_dictionaries(
            {"policy": st.sampled_from(["rescale", "keep_then_tail"])},
            optional={"ends_at": st.integers(1, 120)},
        ),
    )
    limit = st.one_of(
        action(
            "limit",
            min_lr=st.floats(0, 0.01),
            max_lr=st.floats(0.02, 5),
            max_change=st.floats(1.5, 20),
        ),
        complete("limit", lift=st.just(True)),
    )
    switch = action("switch", controller=st.integers(0, 2))
    return st.one_of(some, retime, limit, switch)


class Run:
    """A session in progress in memory, with every value that was sealed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.sealed: dict[str, dict[int, float]] = {name: {} for name in session.timelines}

    def give(self, command: Command) -> tuple[Event, ...]:
        """Submit a command; what is sealed must not have been sealed before."""
        events = decide(self.session, command).events
        self.session = evolve_all(self.session, events)
        self.events += events
        for event in events:
            if isinstance(event, Sealed):
                for name, row in event.values.items():
                    for step, value in enumerate(row.tolist(), start=event.start):
                        assert step not in self.sealed[name], "sealed twice"
                        self.sealed[name][step] = value
        return events

    def order(self, at: int | None = None, **body: Any) -> int:
        """Order an action, and return its number."""
        self.give(Act(Action.parse(body), at, "ann"))
        return self.session.orders.given

    def cancel(self, number: int) -> None:
        """Cancel an order."""
        self.give(Cancel(number))

    def seal(self, until: int) -> None:
        """Seal the steps below `until`, in windows as long as the session allows."""
        while (start := self.session.horizon) < until:
            self.give(Seal(start, until - start, pace=1e-4))
            assert self.session.horizon > start

    def report(self, *readings: Any) -> None:
        """Report readings."""
        self.give(Report(readings))

    def lr(self, start: int, end: int, series: str = "lr") -> list[float]:
        """Return the values of the steps `start` to below `end`, sealing them if need be."""
        self.seal(end)
        return [self.sealed[series][step] for step in range(start, end)]


def run(**spec: Any) -> Run:
    """Begin a session, by default with a base rate of 0.1."""
    base = {} if "groups" in spec else {"base_lr": 0.1}
    return Run(create(SessionSpec.model_validate({"name": "run", **base, **spec})))
