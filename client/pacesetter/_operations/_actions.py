"""Orders of operators to running sessions: one method for each kind of action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from pacesetter._operation import Call, operation
from pacesetter._operations._orders import ordered
from pacesetter._plain import Number, Steps, given


class Actions:
    """Orders: each holds from the step that its answer names, and never for an earlier one.

    In addition to their own keywords, all of them take the same ones:

    - `groups`: the names of the parameter groups that it is for; all of them if not given.
    - `reason`: why, in at most 1000 characters; for the record.
    - `at`: the first step that it holds for; by default the first that was not handed out yet.
    - `dry_run`: only answer what it would do.
    - `key`: makes the order the same one wherever it is repeated. By default each call makes its
      own, so that a call that is retried while the server is away orders only once.
    - `if_revision`: the revision of the session that it is meant for, as a dry run names it. The
      order is refused where an order, a decision or a restart has changed the session since.

    They return `{"id", "effective_step", "steps_away", "seconds_away", "revision"}`: the order's
    number, the first step that it holds for, how many steps and seconds the foremost trainer has
    until then (None where it has not said), and the session's revision. A dry run returns
    `{"effective_step", "steps_away", "seconds_away", "start", "before", "after", "warnings",
    "revision"}`, where `before` and `after` are curves,
    `{"steps": [...], "series": {"lr": [...]}}`, and `revision` is that of the session on which the
    dry run is based.

    They raise `NotFoundError` where there is no such session; `ConflictError` where it is archived,
    the step was handed out already, or the revision is another one; and `InvalidRequestError` where
    the order makes no sense or oversteps the session's limits. The message says what to do instead.
    """

    @operation
    def scale(
        self,
        name: str,
        factor: Number,
        *,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Multiply the learning rate by a factor, whatever its schedule is doing.

        Args:
            name: The session.
            factor: More than 0; 0.5 halves the rate.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(factor=factor)
        return ordered(name, "scale", fields, groups, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def set(
        self,
        name: str,
        lr: Number,
        *,
        over: Steps | None = None,
        ease: str | Mapping[str, Any] | None = None,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Set one learning rate from here on, immediately or over a number of steps.

        It replaces the schedule, scales and holds included; controllers go on from the new rate.
        `revert` goes back to the plan.

        Args:
            name: The session.
            lr: The learning rate, 0 or more.
            over: Steps of a ramp from the present value, or a length such as `{"epochs": 1}`.
            ease: The ramp's shape, such as `"cosine"`, or a mapping; a straight line by default.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(lr=lr, over=over, ease=ease)
        return ordered(name, "set", fields, groups, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def hold(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Stop the clock: the value of that step stays until `release`.

        Controllers, and the orders that change the height, still do so.

        Args:
            name: The session.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        return ordered(name, "hold", {}, groups, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def release(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Go on where `hold` stopped the clock, with the step after the one whose value was kept.

        Args:
            name: The session.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        return ordered(name, "release", {}, groups, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def cooldown(
        self,
        name: str,
        steps: Steps | None = None,
        *,
        until: Steps | None = None,
        to: Number | None = None,
        to_fraction: Number | None = None,
        ease: str | Mapping[str, Any] | None = None,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Go down to a floor from the present value, and stay there.

        Args:
            name: The session.
            steps: How many steps it takes, 1 or more, or a length such as `{"epochs": 2}`; or else
            until: the step by which it is complete.
            to: The floor as a learning rate, 0 or more; or else
            to_fraction: the floor as a fraction of the present rate, from 0 to 1; 0 if neither is
                given.
            ease: The shape; by default one minus the square root of the progress.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(steps=steps, until=until, to=to, to_fraction=to_fraction, ease=ease)
        return ordered(
            name, "cooldown", fields, groups, reason, at, key, if_revision, dry_run=dry_run
        )

    @operation
    def rewarm(
        self,
        name: str,
        steps: Steps,
        *,
        factor: Number | None = None,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Warm up in the middle of the training: multiply by a factor that rises linearly to 1.

        Args:
            name: The session.
            steps: How many steps it rises, 1 or more, or a length such as `{"epochs": 1}`.
            factor: The factor at the beginning, from 0 to 1; 0 by default.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(steps=steps, factor=factor)
        return ordered(
            name, "rewarm", fields, groups, reason, at, key, if_revision, dry_run=dry_run
        )

    @operation
    def retime(
        self,
        name: str,
        total_steps: Steps,
        *,
        ends_at: Steps | None = None,
        policy: str | None = None,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Make the rest of the plan end at another step, to train longer or shorter.

        Args:
            name: The session.
            total_steps: The first step after the plan from now on.
            ends_at: The step at which the law would end if nothing were ordered, where neither the
                law nor the session says so.
            policy: `"rescale"`, the default, makes the rest of the law go faster or slower;
                `"keep_then_tail"` keeps the present value for the steps that were gained, and the
                rest of the law follows unchanged.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(total_steps=total_steps, ends_at=ends_at, policy=policy)
        return ordered(
            name, "retime", fields, groups, reason, at, key, if_revision, dry_run=dry_run
        )

    @operation
    def replace(
        self,
        name: str,
        schedule: Mapping[str, Any],
        *,
        clock: str | None = None,
        value: str | None = None,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Follow another schedule from here on.

        Args:
            name: The session.
            schedule: The law as data, such as `{"kind": "cosine", "total_steps": 1000}`.
            clock: `"local"`, the default, begins at the law's own step 0; `"global"` is where the
                law would be had it run from the session's start.
            value: What the law scales: `"base"`, the default, is the group's own base rate,
                `"level"` is that rate at the level to which controllers have brought it, and
                `"continue"` is the value of this step.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(schedule=schedule, clock=clock, value=value)
        return ordered(
            name, "replace", fields, groups, reason, at, key, if_revision, dry_run=dry_run
        )

    @operation
    def revert(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Go back to the plan, at the point that it would have reached by now.

        Scales, holds, settings, retimings and the laws that a `switch` has moved to end; what
        controllers have cut stays cut.

        Args:
            name: The session.
            groups: Parameter groups; all if not given.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        return ordered(name, "revert", {}, groups, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def limit(
        self,
        name: str,
        *,
        min_lr: Number | None = None,
        max_lr: Number | None = None,
        max_change: Number | None = None,
        lift: bool = False,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Bound controllers and operators anew from here on; what is not given is unbounded.

        Present values do not change: from now on, what would overstep the limits is refused or
        clipped. An order that gives no limit is refused unless it says `lift`.

        Args:
            name: The session; limits always hold for all of its groups.
            min_lr: The least learning rate, 0 or more.
            max_lr: The largest learning rate, more than 0.
            max_change: The largest factor of one change, more than 1.
            lift: Give no limit, and so lift all.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        lifted = True if lift else None
        fields = given(min_lr=min_lr, max_lr=max_lr, max_change=max_change, lift=lifted)
        return ordered(name, "limit", fields, None, reason, at, key, if_revision, dry_run=dry_run)

    @operation
    def switch(
        self,
        name: str,
        controller: SupportsIndex | None = None,
        *,
        reason: str = "",
        at: SupportsIndex | None = None,
        dry_run: bool = False,
        key: str | None = None,
        if_revision: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Move a `switch` controller to its next stage, whatever its predicate says.

        Args:
            name: The session, all of whose groups switch together.
            controller: Its index among the session's controllers; 0 by default.
            reason: Why, for the record.
            at: The first step that it holds for; by default the first not handed out yet.
            dry_run: Only answer what it would do.
            key: Makes a repeated order the same one; by default each call has its own.
            if_revision: The revision that it is meant for; refused where it has changed since.

        Returns:
            Where it holds from, or what it would do; see `Actions`.
        """
        fields = given(controller=controller)
        return ordered(name, "switch", fields, None, reason, at, key, if_revision, dry_run=dry_run)
