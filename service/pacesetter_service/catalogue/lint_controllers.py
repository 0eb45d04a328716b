"""Lint of controllers: those that can never act, or that act in the wrong direction."""

from collections.abc import Iterator
from itertools import islice

from pacesetter_service.catalogue.findings import MAX_GROUPS, Finding, Subject, rule
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.adalrs import AdaLrs
from pacesetter_service.core.controllers.base import NamedController
from pacesetter_service.core.controllers.plateau import Plateau
from pacesetter_service.core.lengths import known
from pacesetter_service.core.spec import Law, SessionSpec


@rule
def floor_of_a_controller_above_base(subject: Subject) -> Iterator[Finding]:
    """A controller's absolute floor lies above the learning rate that it is meant to lower."""
    for pointer, controller, law in _controlled(subject.spec):
        floor = _bound(controller, "min_lr", law.group)
        if floor is not None and floor > law.base > 0:
            yield Finding(
                "floor_above_base",
                "error",
                f"{pointer}/min_lr",
                f"min_lr {floor:g} is above the base learning rate {law.base:g}{_of(law)}:"
                " the controller cannot lower it, and some raise it to the floor",
                "lower min_lr, or raise base_lr",
                "elementary",
            )


@rule
def ceiling_of_a_controller_below_base(subject: Subject) -> Iterator[Finding]:
    """A controller's absolute ceiling lies below the learning rate that it is meant to raise."""
    for pointer, controller, law in _controlled(subject.spec):
        ceiling = _bound(controller, "max_lr", law.group)
        if ceiling is not None and ceiling < law.base:
            yield Finding(
                "ceiling_below_base",
                "error",
                f"{pointer}/max_lr",
                f"max_lr {ceiling:g} is below the base learning rate {law.base:g}{_of(law)}:"
                " the controller cannot raise it, and some lower it to the ceiling",
                "raise max_lr, or lower base_lr",
                "skrl KLAdaptiveLR, rl_games: their bounds are absolute",
            )


def _controlled(spec: SessionSpec) -> Iterator[tuple[str, Controller, Law]]:
    """Return each controller with each group's law, and the controller's place."""
    laws = list(islice(spec.laws(), MAX_GROUPS))
    for index, controller in enumerate(spec.controllers):
        for law in laws:
            yield f"/controllers/{index}", controller, law


def _bound(controller: Controller, field: str, group: str) -> float | None:
    """Return an absolute bound of a controller; that of a group if the bound names groups."""
    bound = getattr(controller, field, None)
    if isinstance(bound, dict):
        bound = bound.get(group)
    return bound if isinstance(bound, float) else None


def _of(law: Law) -> str:
    return f" of {law.group}" if law.group else ""


@rule
def patience_longer_than_run(subject: Subject) -> Iterator[Finding]:
    """A plateau controller can never act in this run."""
    if subject.total is None:
        return
    for pointer, plateau in _plateaus(subject.spec, "patience"):
        if plateau.patience >= subject.total:
            yield Finding(
                "patience_longer_than_run",
                "error",
                pointer,
                f"a patience of {plateau.patience} measurements is never exhausted in a run of"
                f" {subject.total} steps",
                "patience counts measurements: one an epoch, if you report once an epoch",
                "pytorch#2545",
            )


@rule
def search_without_a_trial(subject: Subject) -> Iterator[Finding]:
    """A search for the rate has no time for two windows and a trial."""
    for index, controller in enumerate(subject.spec.controllers):
        if not isinstance(controller, AdaLrs):
            continue
        ends = [controller.until_step, subject.total]
        until = min((end for end in ends if known(end)), default=None)
        if until is None or not known(controller.from_step):
            continue
        steps = int(until - controller.from_step)
        if steps < 3 * controller.window:
            yield Finding(
                "search_without_a_trial",
                "warning",
                f"/controllers/{index}/window",
                f"the search has {max(steps, 0)} steps, and its first trial is over after"
                f" {3 * controller.window}: two windows before it and its own, at a measurement a"
                " step",
                "shorten window, or let from_step and until_step lie further apart",
                "elementary",
            )


SIGNED = ("log_lik", "loglik", "elbo", "reward", "return", "advantage", "logprob", "log_prob")


@rule
def relative_threshold_of_a_signed_metric(subject: Subject) -> Iterator[Finding]:
    """A relative threshold takes worse values of a negative metric for better ones."""
    for pointer, plateau in _plateaus(subject.spec, "threshold_mode"):
        if plateau.improvement.needs_positive and any(
            word in plateau.metric.lower() for word in SIGNED
        ):
            yield Finding(
                "relative_threshold_of_a_signed_metric",
                "warning",
                pointer,
                f"{plateau.metric} may be negative; a relative threshold then accepts worse"
                " values as improvements",
                'use `plateau` with threshold_mode "signed_rel", or "abs" with a threshold in the'
                " metric's own unit",
                "pytorch#47513, pytorch#38622",
            )


def _plateaus(spec: SessionSpec, field: str) -> Iterator[tuple[str, Plateau]]:
    """Return every plateau rule, with presets expanded, and the place of one parameter."""
    for index, controller in enumerate(spec.controllers):
        if isinstance(controller, Plateau):
            yield f"/controllers/{index}/{field}", controller
        elif isinstance(controller, NamedController) and isinstance(controller.expanded, Plateau):
            yield f"/controllers/{index}", controller.expanded
