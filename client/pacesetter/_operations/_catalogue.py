"""What the server knows of schedules, controllers and actions, and its advice on a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsIndex
from urllib.parse import quote

from pacesetter._operation import SVG, Call, an_object, listed_as, operation
from pacesetter._operations._records import drawn
from pacesetter._plain import Number, given, plain


class Catalogue:
    """Kinds of schedules, controllers and actions; curves and advice before there is a session."""

    @operation
    def schedules(self, kind: str | None = None) -> Call[dict[str, Any]]:
        """Return the catalogue of schedule kinds, with their parameters.

        Args:
            kind: Only this one, or those that fit, as in `"torch.*"`.

        Returns:
            `{"schedules": [...]}`, or the entry of the one kind.

        Raises:
            NotFoundError: There is no such kind; the message names similar ones.
        """
        return _kinds("schedules", kind)

    @operation
    def controllers(self, kind: str | None = None) -> Call[dict[str, Any]]:
        """Return the catalogue of controller kinds, with their parameters.

        Args:
            kind: Only this one, or those that fit, as in `"torch.*"`.

        Returns:
            `{"controllers": [...]}`, or the entry of the one kind.

        Raises:
            NotFoundError: There is no such kind; the message names similar ones.
        """
        return _kinds("controllers", kind)

    @operation
    def actions(self, kind: str | None = None) -> Call[dict[str, Any]]:
        """Return the catalogue of action kinds, with their parameters.

        Args:
            kind: Only this one, or those that fit, as in `"torch.*"`.

        Returns:
            `{"actions": [...]}`, or the entry of the one kind.

        Raises:
            NotFoundError: There is no such kind; the message names similar ones.
        """
        return _kinds("actions", kind)

    @operation
    def preview(
        self,
        schedule: Mapping[str, Any] | None = None,
        *,
        base_lr: Number | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        spec: Mapping[str, Any] | None = None,
        start: SupportsIndex = 0,
        count: SupportsIndex = 1000,
        points: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return the curve of a schedule that no session has yet; answers like `forecast`.

        Args:
            schedule: The law as data, such as `{"kind": "cosine", "total_steps": 1000}`.
            base_lr: The rate that the schedule scales.
            groups: In place of `base_lr`: for each group `{"base_lr": ..., "schedule": ...}`.
            spec: Or everything that a session would be created with, as a mapping.
            start: The first step.
            count: How many steps.
            points: About how many of them are shown, extremes kept; 10 to 10,000, by default 1,000.

        Raises:
            InvalidRequestError: The description is refused; `.errors` says where.
        """
        body = _previewed(schedule, base_lr, groups, spec, start, count, points)
        return Call("POST", "/v1/schedules/preview", an_object, body=body)

    @operation
    def preview_picture(
        self,
        schedule: Mapping[str, Any] | None = None,
        *,
        base_lr: Number | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        spec: Mapping[str, Any] | None = None,
        start: SupportsIndex = 0,
        count: SupportsIndex = 1000,
        points: SupportsIndex | None = None,
    ) -> Call[str]:
        """Return the curve of `preview` as a picture, in SVG; the arguments are the same."""
        body = _previewed(schedule, base_lr, groups, spec, start, count, points)
        return Call("POST", "/v1/schedules/preview", drawn, body=body, accept=SVG)

    @operation
    def lint(
        self,
        spec: Mapping[str, Any],
        *,
        planned_steps: SupportsIndex | None = None,
        architecture: str | None = None,
    ) -> Call[list[dict[str, Any]]]:
        """Return the known pitfalls of a description, the gravest first.

        Args:
            spec: What a session would be created with, as a mapping.
            planned_steps: How long the training is, where the spec has no `total_steps`: without
                it, most pitfalls cannot be found.
            architecture: The model's kind, such as `"transformer"`, if it is known.

        Returns:
            `{"code", "severity", "pointer", "message", "advice", "source"}` of each.

        Raises:
            InvalidRequestError: The description is refused; `.errors` says where.
        """
        besides = given(planned_steps=planned_steps, architecture=architecture)
        body = {**plain(spec), **besides}
        return Call("POST", "/v1/schedules/lint", listed_as("findings"), body=body)

    @operation
    def recommend(
        self,
        architecture: str,
        total_steps: SupportsIndex,
        *,
        regime: str | None = None,
        optimizer: str | None = None,
        samples: SupportsIndex | None = None,
        batch_size: SupportsIndex | None = None,
        range_test_max_lr: Number | None = None,
        metric: str | None = None,
        name: str | None = None,
        parameters: SupportsIndex | None = None,
        tokens: SupportsIndex | None = None,
    ) -> Call[dict[str, Any]]:
        """Return a proposal for a situation, with the reasons for each choice.

        Args:
            architecture: The model's kind, such as `"transformer"` or `"cnn"`.
            total_steps: How long the training is.
            regime: `"scratch"`, the default, `"transfer"`, `"fine-tune"`, or another that the
                server names when it refuses one.
            optimizer: `"adamw"`, the default, `"adam"`, `"sgd"` or `"other"`.
            samples: How many samples the data has.
            batch_size: Samples in one step.
            range_test_max_lr: The rate at which the loss of a range test was steepest.
            metric: What is measured; `val_loss` by default.
            name: The name for the session; `recommended` by default.
            parameters: Parameters of the model, without embeddings; with `tokens` they give the
                rate of a transformer's pretraining.
            tokens: How many tokens it is trained on, over all steps.

        Returns:
            `{"spec", "reasons"}`, where `create(**spec)` takes the spec as it is.

        Raises:
            InvalidRequestError: The situation is refused; `.errors` says where.
        """
        body = given(
            architecture=architecture,
            total_steps=total_steps,
            regime=regime,
            optimizer=optimizer,
            samples=samples,
            batch_size=batch_size,
            range_test_max_lr=range_test_max_lr,
            metric=metric,
            name=name,
            parameters=parameters,
            tokens=tokens,
        )
        return Call("POST", "/v1/schedules/recommend", an_object, body=body)

    @operation
    def version(self) -> Call[dict[str, Any]]:
        """Return the server's version: `{"version", "api", ...}`."""
        return Call("GET", "/version", an_object)


def _kinds(family: str, kind: str | None) -> Call[dict[str, Any]]:
    path = f"/v1/{family}"
    if kind is None or "*" in kind or "?" in kind:
        return Call("GET", path, an_object, params=given(kind=kind))
    return Call("GET", f"{path}/{quote(kind, safe='')}", an_object)


def _previewed(
    schedule: Mapping[str, Any] | None,
    base_lr: Number | None,
    groups: Mapping[str, Mapping[str, Any]] | None,
    spec: Mapping[str, Any] | None,
    start: SupportsIndex,
    count: SupportsIndex,
    points: SupportsIndex | None,
) -> dict[str, Any]:
    described = given(schedule=schedule, base_lr=base_lr, groups=groups)
    return {**plain(spec or {}), **described, **given(start=start, count=count, points=points)}
