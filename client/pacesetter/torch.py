"""`RemoteLR`: a torch scheduler whose rates come from a session; `lr_find`, `probe`, `merge`.

torch is imported here and in `pacesetter._torch`, which only this imports.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pacesetter._client import Client
from pacesetter._errors import PacesetterError
from pacesetter._from_torch import candidates
from pacesetter._groups import described_bases, groups_of, own_rates
from pacesetter._range_test import RangeTest
from pacesetter._reports import Scalar
from pacesetter._session import Session, core_of
from pacesetter._torch.adopting import open_converted
from pacesetter._torch.arguments import checked_optimizer, optimizer_of
from pacesetter._torch.batch_size import BatchSize
from pacesetter._torch.hooks import Hooks, bare, is_driven
from pacesetter._torch.lr_find import lr_find
from pacesetter._torch.merging import merge
from pacesetter._torch.probe import Probe, probe
from pacesetter._torch.relay import SessionRelay, misreported
from pacesetter._torch.restarts import Restarts
from pacesetter._torch.resuming import Resuming
from pacesetter._torch.telling import Telling
from pacesetter._torch.tensors import shared_with_others
from pacesetter._torch.writing import Writing, check_fit
from pacesetter.distributed import open_session, relay_for

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

    from torch.distributed import ProcessGroup

__all__ = ["Probe", "RangeTest", "RemoteLR", "groups_of", "lr_find", "merge", "probe"]


class RemoteLR(Telling, Resuming):
    """Drives an optimizer's learning rates from a session, in place of a torch scheduler.

    ```python
    scheduler = RemoteLR(optimizer, client.session("vit-run-42"))
    for batch in loader:
        train(batch)
        optimizer.step()
        scheduler.step()
    ```

    `step(metric)` reports the metric for the step just done and then advances, so the loop written
    for `ReduceLROnPlateau` works unchanged. Momentum goes to `momentum` or `betas[0]`, weight decay
    to `weight_decay`, where the session drives them. The optimizer is never patched.

    Where the session drives momentum or weight decay, a param group that has 0 of it keeps 0 if
    others of the same law have more: biases and norms stay without weight decay. Other values that
    differ are refused.

    `optimizer.add_param_group` is noticed at the next step. A param group that the session has is
    driven from its first update on. Any other keeps its own rate, and a warning says so. Param
    groups that were removed, exchanged or reordered are refused. A new `RemoteLR` on the same
    `Session` goes on at the step where the last one stood.

    A learning rate in a tensor stays the same object. Param groups of different laws, or several
    optimizers, must not share one; an added or loaded param group gets its own.

    Notices of the server are delivered by `step()`, to the session's `on_notice`. Let a listener
    remember what to do (roll back, save) and the loop do it: a listener must not move this
    scheduler.

    Args:
        optimizer: The optimizer to drive.
        session: The session that the values come from.
        groups: The session group of each param group; None for one that keeps its own rate; a
            session without groups calls its one rate `"lr"`. By default by `group["name"]` where
            all param groups have one, else by order. The session may have more groups: they are for
            param groups that are added later, by their name or by what `groups` has at the end.
        metric: The name under which `step(value)` reports; by default the one that the session's
            controllers watch.
        verify: Whether to check at the steps 1, 2, 4, 8... and at every window's edge that the
            optimizer holds what was written, and raise `LRMismatchError` if not: with two writers
            the learning rate is unknown.
        mode: How ranks of a torch.distributed training share the session. With `"auto"`, where
            there are several ranks, the first one asks the server and broadcasts each window;
            `"broadcast"` insists on a process group; with `"each"`, every rank asks by itself.
        group: The process group; torch's default group if not given. One on the CPU (gloo) never
            makes the accelerator wait. Its timeout must be longer than the client's `max_wait`.
        reports: Whose metrics count in a broadcast: the `"first"` rank's, the `"mean"` of all, or
            `"each"`, where the session expects that many `ranks`.
        batch_size: Samples in one step, over all ranks together. The server is told when the
            session begins, with each restart, and at the first step of a job that goes on without
            one; the session's `batch_scaling` decides what a change does.
        attempt_key: What all ranks of a restart share, see `Session.restart`; every further restart
            of the same process adds its number. Usually it need not be given.

    Under torch.distributed, all ranks make a scheduler, step it, and save and load it at the same
    steps. An error of any rank is raised on all of them.

    Raises:
        GroupError: Optimizer and session do not fit.
        RankMismatchError: From `step()`, when ranks are at different steps, or hold other values.
        StaleAttemptError: A restart of the job has taken over.
        ServerUnavailableError: From the constructor and from `step()`, when values are missing and
            the server stays away; the position is unchanged, so `step()` may be called again.
        SessionFinishedError: From `step()`, when a controller has ended the session.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        session: Session,
        *,
        groups: Sequence[str | None] | None = None,
        metric: str | None = None,
        verify: bool = True,
        mode: str = "auto",
        group: ProcessGroup | None = None,
        reports: str = "first",
        batch_size: int | None = None,
        attempt_key: str | None = None,
    ) -> None:
        # LRScheduler.__init__ is left out on purpose: it patches optimizer.step.
        checked_optimizer(optimizer)
        if not isinstance(session, Session):
            raise TypeError(
                f"{type(session).__name__} is not a Session: pass Client().session(name)"
            )
        self.optimizer = optimizer
        self.session = session
        shared = relay_for(session, mode=mode, group=group, reports=reports)
        self._relay = shared or SessionRelay(session)
        self._metric = metric or _only(session.info.metrics)
        self._verify = verify
        self._batch = BatchSize(self._relay, batch_size)
        stood = core_of(session).walkers.position if self._goes_on else None
        self._restarts = Restarts(self._relay, attempt_key, stood=stood)
        self._begun = self._batch.told and not self._restarts.lived
        self._writing = Writing(session.info, groups)
        made_with = own_rates(optimizer.param_groups)
        self._drive_from(core_of(session).begins_at if stood is None else stood)
        # A session to be continued has a law that is not the optimizer's.
        known = stood is None and not core_of(session).is_to_branch
        self._say_how_it_drives(made_with if known else None)
        self._take_bases()

    def _drive_from(self, step: int) -> None:
        """Match optimizer and session, and write a step's values; all ranks call it."""
        self._forget(step)
        fault = (
            misreported(self._relay)
            or self._writing.match(self.optimizer.param_groups)
            or shared_with_others(bare(self.optimizer))
        )
        if not self._batch.told:
            self._begun = self._batch.tell(lambda: not self._restarts.lived)
        self._seek(step, fault or self._unfit())
        self._look_soon()
        self._hooks = Hooks(self, awaits=bool(self._writing.missing))
        self._hooks.displace()
        core_of(self.session).walkers.lead(self)

    def _say_how_it_drives(self, made_with: Sequence[float] | None) -> None:
        """Log which rates of the optimizer are overwritten, and which of its values are left alone.

        Args:
            made_with: The rates that the optimizer was made with, where the session begins with
                them.
        """
        if made_with and (said := self._writing.overwritten(made_with, self._last_lr)):
            self._say(logging.WARNING, said)
        for each in self._writing.first_words:
            self._say(logging.INFO, each)

    _goes_on: ClassVar[bool] = True
    """Whether it stands where the session's last scheduler stood, and not where it begins."""

    @classmethod
    def from_torch(
        cls,
        scheduler: LRScheduler,
        session: str = "",
        *,
        client: Client | None = None,
        metric: str = "metric",
        **spec: Any,  # noqa: ANN401 - Client.create_session's keywords, typed there
    ) -> RemoteLR:
        """Create (or reopen) a session with the law of a torch scheduler, and follow it.

        ```python
        scheduler = RemoteLR.from_torch(OneCycleLR(optimizer, 0.1, total_steps=1000), "run-1")
        ```

        The torch scheduler must no longer be stepped. `CosineAnnealingLR` is held at its minimum
        after `T_max`, where torch's would rise again, unless it is past it already or another
        follows it in a SequentialLR. torch's recursive forms and these closed ones agree to about
        1e-12.

        To resume such a training, run the same line and load this scheduler's state; the optimizer
        may be loaded before the torch scheduler is built, after it, or last.

        To take over a training that torch scheduled, load all states first, the optimizer's and the
        scheduler's. Where the optimizer then holds another rate than the scheduler's law says,
        because the trainer has scaled it for instance, the session goes on from there as torch
        would, with a warning; where torch would write over it instead, it is refused.

        Args:
            scheduler: One of StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR,
                PolynomialLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR,
                SWALR, ReduceLROnPlateau, LambdaLR of transformers' `get_*_schedule`, or a
                SequentialLR or ChainedScheduler of them. One that has been stepped is continued
                where it is, a ReduceLROnPlateau with all that it has seen.
            session: The name of the session.
            client: The connection; by default a new `Client()`.
            metric: The name under which `step(value)` reports, for ReduceLROnPlateau.
            **spec: More of `Client.session`'s keywords, for instance `labels` or `resume`.

        Raises:
            UnsupportedSchedulerError: Its law cannot be written down as data, or the optimizer
                holds a rate from which it would not go on; nothing was created.
            GroupError: Optimizer and session would not fit; nothing was created.
            ConflictError: The name is taken by a session of another description.
        """
        optimizer = optimizer_of(scheduler, session)
        groups, driven = optimizer.param_groups, is_driven(optimizer)
        found = candidates(scheduler, groups, metric, driven=driven)
        check_fit(groups, {**found[0].description, **spec})
        return cls(optimizer, open_converted(client or Client(), session, found, spec))

    @classmethod
    def create(
        cls,
        optimizer: Optimizer,
        session: str,
        *,
        client: Client | None = None,
        base_lr: float | str = "optimizer",
        metric: str | None = None,
        verify: bool = True,
        mode: str = "auto",
        group: ProcessGroup | None = None,
        reports: str = "first",
        attempt_key: str | None = None,
        **spec: Any,  # noqa: ANN401 - Client.session's keywords, typed there
    ) -> Self:
        """Open a session whose base learning rates are the optimizer's own, and follow it.

        ```python
        optimizer = AdamW(model.parameters(), lr=3e-4)
        scheduler = RemoteLR.create(
            optimizer, "run-1", schedule={"kind": "cosine", "total_steps": 1000}
        )
        ```

        The optimizer's own rate is its `initial_lr` where it has been scheduled before, else its
        `lr`. Param groups with different rates become groups of the session. Under
        torch.distributed, all ranks call it.

        Args:
            optimizer: The optimizer to drive.
            session: The session's name.
            client: The connection; by default a new `Client()`.
            base_lr: `"optimizer"`, or a number to train with in place of the optimizer's rate.
            metric: See the class, also for all arguments up to `attempt_key`.
            verify: See there.
            mode: See there.
            group: See there.
            reports: See there.
            attempt_key: See there.
            **spec: More of `Client.session`'s keywords. In `groups={"head": {"schedule": ...}}` a
                `base_lr` that is left out is taken from the param group of this name.

        Raises:
            GroupError: A group has neither a base learning rate nor a param group, or optimizer and
                session would not fit; nothing was created.
            ConflictError: The name is taken by a session of another description.
        """
        checked_optimizer(optimizer)
        if isinstance(base_lr, str):
            if base_lr != "optimizer":
                raise ValueError(f'base_lr={base_lr!r}: pass a number, or "optimizer"')
            spec.update(described_bases(optimizer, spec.pop("groups", None)))
        else:
            spec["base_lr"] = base_lr
        check_fit(optimizer.param_groups, spec)
        opened = open_session(client or Client(), session, group=group, **spec)
        return cls(
            optimizer,
            opened,
            metric=metric,
            verify=verify,
            mode=mode,
            group=group,
            reports=reports,
            attempt_key=attempt_key,
        )

    # -- the step --------------------------------------------------------------------------------

    def step(self, metrics: Scalar | None = None) -> None:
        """Advance by one step and write its values to the optimizer.

        Args:
            metrics: Reported first, for the step just done.
        """
        if metrics is not None:
            self._report(metrics)
        index = self._index + 1
        groups = self.optimizer.param_groups
        # A load, an addition and most exchanges change the last one; others are noticed at a look.
        if index >= self._mark or len(groups) != self._count or groups[-1] is not self._last:
            self._turn(index)
            return
        try:
            self._index = index
            if (rows := self._rows) is not None:
                for group, group["lr"] in zip(groups, rows[index]):  # noqa: B007, B905 - counted above
                    pass  # the loop itself has written
            elif (shared := self._shared) is not None:
                value = shared[index]
                for group in groups:
                    group["lr"] = value
            else:
                self._writing.write(groups, index)
        except BaseException:  # Ctrl-C may come between two groups: a step must be taken whole
            self._writing.write(groups, index)
            raise

    def _turn(self, index: int) -> None:
        """Take a step at which there is something to check: the window, or the optimizer."""
        step = self._start + index
        window = self._window
        outside = window is None or step not in window
        if not self._begun and (self._mark == 0 or outside):
            self._begin()  # all ranks are here
        if not self._hooks.was_stepped():
            self._say(
                logging.WARNING,
                "`scheduler.step()` was called before `optimizer.step()`, so the first learning "
                "rate of the schedule is trained with by no update: call `optimizer.step()` first",
            )
        self._restarts.arrive(self.last_epoch)
        fault: PacesetterError | None = self._stranded()
        if fault is None and self._relay.may_raise(edge=outside or step >= self._look):
            fault = self._restarts.left_behind(self.last_epoch) or self._mismatch()
        self._take_in()
        self._seek(step, fault or self._unfit())


def _only(metrics: Sequence[str]) -> str | None:
    return metrics[0] if len(metrics) == 1 else None
