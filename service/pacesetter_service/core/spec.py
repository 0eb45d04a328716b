"""What a user asks for when creating a session."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers import AnyController, Controller
from pacesetter_service.core.lengths import Clock, StepCount, resolve, whole
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.measuring import MetricName, MetricSpec
from pacesetter_service.core.mistakes import placed, refusal
from pacesetter_service.core.model import (
    Checked,
    Count,
    Line,
    Model,
    NonNegative,
    Real,
    Step,
    Written,
    did_you_mean,
)
from pacesetter_service.core.schedules import AnySchedule, Schedule
from pacesetter_service.core.schedules.ends import is_constant, length_of
from pacesetter_service.core.schedules.named.decays import Constant
from pacesetter_service.core.timeline import End

MAX_NESTING = 32
"""How deep schedules may be nested, counted in JSON objects and arrays."""

MAX_NODES = 20_000
"""The most JSON objects and arrays in one spec."""

MAX_WINDOW = 65_536
"""The most steps that one call can seal or read."""

MAX_VALUES = 2**20
"""The most values, over all series, that one call can seal, read or draw."""

SILENT_AFTER = 100
"""The steps without a measurement that raise a notice, if the spec gives no plan length."""

LEAST_SILENCE = 3
"""Fewer steps than this are no silence, however short the plan is."""

RESERVED_CHANNELS = {"step", "attempt", "horizon", "revision", "notices", "start", "series"}

Name = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        "Write 1 to 128 letters (A to Z), digits, dots, hyphens and underscores, beginning with a"
        " letter or a digit: no blanks, no slashes",
    ),
]
GroupName = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        "Name a group by 1 to 64 letters (A to Z), digits, hyphens and underscores, beginning with"
        " a letter or a digit: no blanks, no dots",
    ),
]
AttemptKey = Annotated[
    str,
    Written(
        r"^[\x20-\x7e]{1,256}$",
        "Write 1 to 256 characters of ASCII, all of them printable: no line breaks",
    ),
]
LabelName = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$",
        "Name a label by 1 to 64 letters (A to Z), digits, dots, hyphens, underscores and slashes,"
        " beginning with a letter or a digit: no blanks",
    ),
]
LabelValue = Annotated[Line, Field(max_length=256)]

MAX_LABELS = 32
"""The most labels of one session."""


_SURROGATE = re.compile("[\ud800-\udfff]")


class Law(NamedTuple):
    """A group's schedule, its base, and whether the schedule is its own or the session's."""

    group: str
    schedule: Schedule
    base: float
    own: bool


class Series(NamedTuple):
    """One named output of a session, with its initial law."""

    name: str
    group: str
    channel: str
    schedule: Schedule
    base: float
    end: End | None = None


class GroupSpec(Model):
    """A parameter group: its base learning rate and, if it differs, its schedule."""

    base_lr: NonNegative = Field(
        description='the group\'s base learning rate: what `"base"` stands for in its schedule'
    )
    schedule: AnySchedule | None = Field(
        default=None, description="the group's own schedule; without it the session's"
    )


class Reaction(Model):
    """When controllers decide: at every so many steps, exactly, and nowhere else.

    The steps from a boundary on are sealed once every watched metric has been measured at the step
    before it, so each decision holds from exactly the next step, for all ranks. Who asks waits for
    at most `timeout` seconds; then the boundary is passed with what there is (a quorum, or no
    decision), and that is recorded.
    """

    decide_every: StepCount = Field(
        description="controllers decide at every so many steps, and nowhere else"
    )
    timeout: Annotated[Real, Field(ge=0, le=3600)] = Field(
        default=30.0,
        description="for how many seconds a call waits for the measurement of the step before a"
        " boundary",
    )


class _Silence(Model):
    """A length on its own, so that it can be converted to steps."""

    steps: StepCount


class Origin(Model):
    """The template that a spec was made from, and what filled its holes."""

    template: str = Field(description="the template with its version, such as `vit@3`")
    values: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="what filled the template's holes, by the name of the parameter",
    )


class ForkOrigin(Model):
    """The session whose past this one shares, up to a step; and that session's own origin."""

    session: Name = Field(description="the name of the session whose past is shared")
    step: Step = Field(description="the first step that is not shared")
    forked_from: "ForkOrigin | None" = Field(
        default=None, description="that session's own origin, if it is a fork too"
    )


NOT_YOURS: Mapping[str, str] = {
    "origin": "Name a template with `template` and `with`",
    "forked_from": "Fork the session",
    "earlier": "A fork has it: fork the session",
}
"""The fields that only the service writes into a spec, with what a caller can do instead."""


def refuse_not_yours(fields: Mapping[str, object]) -> None:
    """Refuse fields from a caller that only the service writes; null counts as absent.

    Raises:
        pydantic.ValidationError: The caller says it.
    """
    for name, instead in NOT_YOURS.items():
        if fields.get(name) is not None:
            raise refusal((name,), "not_yours", f"The service writes this. {instead}")


class Earlier(Model):
    """What a fork's steps were described by before the one from which it is described anew."""

    until: Step = Field(description="the first step that it does not describe")
    spec: "SessionSpec" = Field(description="the description of the steps before")


class SessionSpec(Checked):
    """A session as its creator describes it; immutable from then on, but for its labels.

    `base_lr` is for sessions without `groups`; a group without a schedule follows the session's.
    `metrics` says how what `ranks` report becomes what `controllers` see; a metric not named there
    is the mean over all ranks. `max_lookahead` is how many steps may be sealed, from the one
    asked for on; with controllers and neither it nor a `reaction` given it is 1, which is exact for
    a trainer that steps and reports in turn. A metric that a controller watches and that was not
    measured for `silent_after` steps is told of; by default that is a tenth of the plan or, if
    the spec does not say how long that is, 100 steps, and at least two epochs and two boundaries.
    Behind the end of the plan (`total_steps`, or where the schedule says that it ends, if that is
    sooner) the last rate is kept, unless `after_end` is `"law"`: then it is what the schedule's law
    says there, which may rise again. The numbers from `total_steps` to `tokens_per_step` say what
    lengths in other units come to.
    """

    name: Name = Field(
        description=(
            "how the session is called: letters, digits, `.`, `_` and `-`, the first a "
            "letter or a digit"
        )
    )
    schedule: AnySchedule = Field(
        default=Constant(),
        description=(
            "the law of the learning rate, an object with a `kind`; a text is a kind with "
            "its defaults"
        ),
    )
    base_lr: NonNegative | None = Field(
        default=None,
        description='the base learning rate, for a session without `groups`: what `"base"` stands'
        " for",
    )
    groups: Annotated[dict[GroupName, GroupSpec], Field(min_length=1, max_length=1024)] | None = (
        Field(
            default=None,
            description=(
                "parameter groups by name, each with a base learning rate and maybe a schedule "
                "of its own"
            ),
        )
    )
    controllers: Annotated[tuple[AnyController, ...], Field(max_length=16)] = Field(
        default=(),
        description=(
            "rules that read metrics and change the learning rate, in the order in which "
            "they decide"
        ),
    )
    metrics: Annotated[dict[MetricName, MetricSpec], Field(max_length=256)] = Field(
        default_factory=dict,
        description=(
            "how what ranks report becomes what controllers see, by metric; the mean if not"
            " named here"
        ),
    )
    limits: Limits = Field(
        default=Limits(), description="what no controller and no operator oversteps"
    )
    reaction: Reaction | None = Field(
        default=None,
        description="at which steps controllers decide; without it before each sealing",
    )
    silent_after: StepCount | None = Field(
        default=None,
        description="steps without a measurement of what controllers watch after which that is"
        " told",
    )
    ranks: Annotated[Count, Field(le=65_536)] = Field(
        default=1, description="how many ranks report metrics: the world size, as a rule"
    )
    max_lookahead: Annotated[Count, Field(le=MAX_WINDOW)] | None = Field(
        default=None,
        description="how many steps may be sealed, from the one that is asked for on",
    )
    total_steps: Count | None = Field(
        default=None,
        description="how long the training is planned to be, in steps; where the plan ends",
    )
    after_end: Literal["hold", "law"] = Field(
        default="hold",
        description=(
            "behind the plan's end: `hold` keeps the last rate, `law` is what the schedule "
            "says there"
        ),
    )
    steps_per_epoch: Count | None = Field(
        default=None, description="optimizer steps in one epoch: what lengths in epochs come to"
    )
    batch_size: Count | None = Field(
        default=None,
        description="samples in one step over all ranks: what lengths in samples come to",
    )
    tokens_per_step: Count | None = Field(
        default=None,
        description="tokens in one step over all ranks: what lengths in tokens come to",
    )
    start_step: Step = Field(
        default=0,
        description="the first step of the session; those before it were trained elsewhere",
    )
    batch_scaling: Literal["none", "linear", "sqrt", "refuse"] = Field(
        default="none",
        description=(
            "what another batch size does to the rate: nothing, its ratio, the root of "
            "that, or a refusal"
        ),
    )
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=MAX_LABELS)] = Field(
        default_factory=dict,
        description='what the session is found by: texts by name, such as `{"team": "vision"}`',
    )
    origin: Origin | None = Field(
        default=None, description="the template that it was made from; the service fills this in"
    )
    forked_from: ForkOrigin | None = Field(
        default=None, description="the session whose past it shares; the service fills this in"
    )
    earlier: Earlier | None = Field(
        default=None,
        description="how a fork's steps were described before; the service fills this in",
    )

    @model_validator(mode="before")
    @classmethod
    def _not_too_deep(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        refuse_unreadable(data)
        return data

    def _faults(self) -> Iterator[PydanticCustomError | ValidationError]:
        yield from self._faults_of_series()
        yield from self._faults_of_metrics()
        if self.reaction is not None:
            resolve(self.reaction, self.clock)
        if self.silent_after is not None:
            resolve(_Silence(steps=self.silent_after), self.clock)
        yield from self._faults_of_controllers()

    def _faults_of_series(self) -> Iterator[PydanticCustomError]:
        if (self.base_lr is None) == (self.groups is None):
            yield PydanticCustomError(
                "base_lr_or_groups",
                "Give `base_lr` for one learning rate, or `groups` with a base_lr each; not both",
            )
        for series in self.series():
            if series.channel in RESERVED_CHANNELS:
                yield PydanticCustomError(
                    "reserved_channel",
                    "A channel cannot be called {channel}: answers use that word",
                    {"channel": series.channel},
                )

    def _faults_of_metrics(self) -> Iterator[ValidationError]:
        for name, metric in self.metrics.items():
            if metric.of is not None and (metric.of == name or self._is_view(metric.of)):
                fault = PydanticCustomError(
                    "view_of_view",
                    "Metric {name} is a view of {of}, which is no metric that ranks report",
                    {"name": name, "of": metric.of},
                )
                yield placed(fault, "metrics", name, "of")
        for name, metric in self.metrics.items():
            for field in ("ranks", "quorum"):
                wanted = getattr(metric, field)
                if wanted is not None and wanted > self.ranks:
                    fault = PydanticCustomError(
                        "too_many_ranks",
                        "Metric {name} waits for {wanted} ranks ({field}), but the session has"
                        " {ranks}: set the session's `ranks` to the world size",
                        {"name": name, "wanted": wanted, "field": field, "ranks": self.ranks},
                    )
                    yield placed(fault, "metrics", name, field)

    def _faults_of_controllers(self) -> Iterator[ValidationError]:
        known = set(self.groups or ())
        for index, controller in enumerate(self.controllers):
            for name in sorted(controller.groups_named - known):
                fault = PydanticCustomError(
                    "unknown_group",
                    "Controller {index} names the group {name}, which this session does not"
                    " have.{hint}",
                    {"index": index, "name": name, "hint": did_you_mean(name, known)},
                )
                yield placed(fault, "controllers", index)
        channels = {series.channel for series in self.series()}
        for index, controller in enumerate(self.rules):
            for transition in controller.transitions:
                driven = set(transition.schedule.channels())
                if driven != channels:
                    fault = PydanticCustomError(
                        "different_channels",
                        "Controller {index} goes over to a schedule that drives {driven}, but this"
                        " session has {channels}; name a law for each with `channels`",
                        {
                            "index": index,
                            "driven": ", ".join(sorted(driven)),
                            "channels": ", ".join(sorted(channels)),
                        },
                    )
                    yield placed(fault, "controllers", index)

    def at(self, step: int) -> "SessionSpec":
        """Return the description in force at a step; an attempt that begins there follows it."""
        if self.earlier is None or step >= self.earlier.until:
            return self
        return self.earlier.spec.at(step)

    @property
    def template(self) -> str | None:
        """The template and version that this spec, or the one it was forked from, was made of."""
        if self.origin is not None:
            return self.origin.template
        return None if self.earlier is None else self.earlier.spec.template

    @property
    def described_from(self) -> int:
        """The first step that this description holds for."""
        return self.start_step if self.earlier is None else self.earlier.until

    def _is_view(self, metric: str) -> bool:
        return metric in self.metrics and self.metrics[metric].of is not None

    @property
    def clock(self) -> Clock:
        """What converts lengths in other units to steps."""
        return Clock(self.total_steps, self.steps_per_epoch, self.batch_size, self.tokens_per_step)

    @cached_property
    def rules(self) -> tuple[Controller, ...]:
        """The controllers, with their lengths in steps."""
        return tuple(resolve(controller, self.clock) for controller in self.controllers)

    @cached_property
    def measured(self) -> dict[str, MetricSpec]:
        """Every metric whose readings some controller needs, with the ranks that it expects."""
        watched = {name for rule in self.controllers for name in rule.watches}
        names = {self.metric(name).of or name for name in watched}
        return {
            name: metric.model_copy(update={"ranks": metric.ranks or self.ranks})
            for name in sorted(names)
            for metric in [self.metric(name)]
        }

    @cached_property
    def watched(self) -> frozenset[str]:
        """The names of these metrics, cached because every report is checked against them."""
        return frozenset(self.measured)

    def metric(self, name: str) -> MetricSpec:
        """Return the spec of a metric, or its defaults."""
        return self.metrics.get(name, MetricSpec())

    def views(self, name: str) -> list[str]:
        """Name what controllers can see of a metric that ranks report: itself and its views."""
        return [name, *(view for view, metric in self.metrics.items() if metric.of == name)]

    @cached_property
    def decide_every(self) -> int | None:
        """How many steps lie between decisions of controllers; None if steps do not bind them."""
        reaction = resolve(self.reaction, self.clock) if self.reaction else None
        return whole(reaction.decide_every) if reaction else None

    @cached_property
    def patience_for_metrics(self) -> int:
        """After how many steps without a measurement of a watched metric a notice is raised."""
        if self.silent_after is not None:
            return whole(resolve(_Silence(steps=self.silent_after), self.clock).steps)
        lengths = [length_of(law.schedule) for law in self.laws()]
        plan = self.total_steps or max((each for each in lengths if each is not None), default=None)
        tenth = SILENT_AFTER if plan is None else int(plan - self.start_step) // 10
        epoch, boundary = self.steps_per_epoch or 0, self.decide_every or 0
        return max(tenth, 2 * epoch, 2 * boundary, LEAST_SILENCE)

    def laws(self) -> Iterator[Law]:
        """Return each group's schedule as it was written, with its lengths in steps."""
        clock = self.clock
        shared = resolve(self.schedule, clock)
        if self.groups is None:
            assert self.base_lr is not None  # noqa: S101 - the validator saw to it
            yield Law("", shared, self.base_lr, own=False)
            return
        for name, group in self.groups.items():
            law = shared if group.schedule is None else resolve(group.schedule, clock)
            yield Law(name, law, group.base_lr, own=group.schedule is not None)

    def series(self) -> tuple[Series, ...]:
        """Return the session's series, group by group, `lr` first in each."""
        return self._series

    def place_of_law(self, series: str) -> tuple[str, ...]:
        """Return the place in the spec of a series' law."""
        group = next(each.group for each in self.series() if each.name == series)
        own = group and self.groups is not None and self.groups[group].schedule is not None
        return ("groups", group, "schedule") if own else ("schedule",)

    @cached_property
    def _series(self) -> tuple[Series, ...]:
        return tuple(
            series for law in self.laws() for series in _series_of(law, self._end_of(law.schedule))
        )

    def _end_of(self, law: Schedule) -> End | None:
        """Return where the plan of a law is over, if the last value is to be kept from there on."""
        if self.after_end == "law" or is_constant(law):
            return None
        length, total = length_of(law), self.total_steps
        if length is not None and (total is None or length <= total):
            return End(length, own=True)
        return None if total is None else End(float(total), own=False)

    @property
    def lookahead(self) -> int | None:
        """How many steps, from the requested one on, may be sealed; None if there is no limit."""
        if self.max_lookahead is None and self.controllers:
            return min(self.decide_every or 1, MAX_WINDOW)
        return self.max_lookahead


def _series_of(law: Law, end: End | None) -> Iterator[Series]:
    laws = law.schedule.channels()
    for channel in sorted(laws, key=lambda name: (name != "lr", name)):
        name = f"{law.group}.{channel}" if law.group else channel
        yield Series(name, law.group, channel, laws[channel], law.base, end)


def refuse_unreadable(data: object) -> None:
    """Refuse JSON that no spec needs and that would cost more to examine than it is worth.

    Raises:
        PydanticCustomError: It is deeper than `MAX_NESTING` schedules could be, has more than
            `MAX_NODES` objects and arrays, or has half of a surrogate pair in it.
    """
    nodes = 0
    level: list[object] = [data]
    for _ in range(3 * MAX_NESTING):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise PydanticCustomError(
                "too_many_parts",
                "There are more than {limit} objects and arrays here; share what groups share",
                {"limit": MAX_NODES},
            )
        level = [child for node in level for child in _parts(node)]
        if not level:
            return
    raise PydanticCustomError(
        "too_deep",
        "Schedules stand in each other more than {limit} deep; flatten the tree",
        {"limit": MAX_NESTING},
    )


def _parts(node: object) -> list[object]:
    """Return the objects and arrays directly in one; texts are checked on the way."""
    children: Iterable[object] = ()
    if isinstance(node, dict):
        children = (*node.keys(), *node.values())
    elif isinstance(node, list):
        children = node
    parts: list[object] = []
    for child in children:
        if isinstance(child, dict | list):
            parts.append(child)
        elif isinstance(child, str) and not child.isascii() and _SURROGATE.search(child):
            raise PydanticCustomError("not_unicode", "Half of a surrogate pair is no text")
    return parts
