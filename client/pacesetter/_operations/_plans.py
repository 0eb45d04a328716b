"""Plans: predicting the loss under other schedules, and ordering one of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from pacesetter._opening import path_of
from pacesetter._operation import Call, an_object, operation
from pacesetter._plain import Number, Steps, given, plain
from pacesetter._plan import Plan


class Plans:
    """Questions before an order for the rest of a pretraining."""

    @operation
    def plan(
        self,
        name: str,
        metric: str,
        *,
        goal: str | None = None,
        total_steps: Steps | None = None,
        loss: Number | None = None,
        steps: Steps | None = None,
        candidates: Sequence[Mapping[str, Any]] | None = None,
        group: str | None = None,
        metric_kind: str | None = None,
        stage: str | None = None,
        epochs: Number | None = None,
    ) -> Call[Plan]:
        """Predict a pretraining's loss under other schedules for the rest; nothing is changed.

        Args:
            name: The session.
            metric: Its loss, by the name under which it is reported.
            goal: `lowest_loss` at `total_steps` (the default), `fewest_steps` to `loss`, or
                `budget`: the lowest loss after `steps` more.
            total_steps: Where the training ends, for `fewest_steps` at the latest; by default where
                the session's plan ends.
            loss: The loss to reach, for `fewest_steps`.
            steps: How many steps more, for `budget`.
            candidates: `{"orders": [{"action", "at"}], "label", "total_steps"}` of each way to go
                on; by default the server searches for them.
            group: The parameter group whose rate is meant; by default the first.
            metric_kind: `other` says that the metric is not a loss, so that the plan is declined.
            stage: `finetuning` declines the plan; by default the label `stage` decides.
            epochs: How often the training goes over its data; by default derived from
                `steps_per_epoch`.

        Raises:
            InvalidRequestError: No such metric was reported, or no end is known.
            ConflictError: The session takes no more orders.
        """
        body = {"metric": metric} | given(
            goal=goal,
            total_steps=total_steps,
            loss=loss,
            steps=steps,
            candidates=candidates,
            group=group,
            metric_kind=metric_kind,
            stage=stage,
            epochs=epochs,
        )
        request = plain(body)

        def read(answer: Any) -> Plan:  # noqa: ANN401 - the JSON of an answer
            return Plan.parse(an_object(answer), request)

        return Call("POST", path_of(name) + "/plan", read, body=request)

    @operation
    def apply_plan(
        self,
        name: str,
        plan: Plan,
        candidate: SupportsIndex = 0,
        *,
        reason: str = "",
        key: str | None = None,
    ) -> Call[dict[str, Any]]:
        """Order a candidate of a plan: all of its orders, or none.

        Args:
            name: The session.
            plan: The plan that `plan` returned.
            candidate: Its index in `plan.candidates`; 0 is the best.
            reason: Why, for the record, which also states what was expected.
            key: Makes a repeated order the same one; by default each call has its own.

        Returns:
            `{"plan", "candidate", "effective_steps", "reason", "revision"}`.

        Raises:
            ConflictError: The training has gone on, and the server no longer has the plan.
            InvalidRequestError: There is no such candidate, or it cannot be ordered.
        """
        body = {
            "plan": plan.id,
            "request": plan.request,
            "candidate": plain(candidate),
            **given(reason=reason or None),
        }
        headers = {"idempotency-key": secrets.token_hex(16) if key is None else key}
        path = path_of(name) + "/plan/apply"
        return Call("POST", path, an_object, body=body, headers=headers)
