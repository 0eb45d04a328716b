"""Which training owns a session's attempts, and what becomes of one that was trained before.

A name may be reused by mistake. Then the new training must not train with what was decided for the
old one. But a job that its launcher starts again simply goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pacesetter._errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ResumeError,
    StaleAttemptError,
)
from pacesetter._fork import ForkableLock
from pacesetter._info import SessionInfo
from pacesetter._launch import Launch, drawn_key

RESUMES = ("error", "restart", "continue")

# Errors that settle whether an attempt is opened: it is not, and a late call would not open it.
REFUSALS = (ConflictError, InvalidRequestError, NotFoundError, ResumeError)


def checked_resume(resume: str) -> str:
    """Return `resume`, which must be one of `RESUMES`.

    Raises:
        ValueError: The value is not valid.
    """
    if resume not in RESUMES:
        raise ValueError(f"resume={resume!r}: choose from {', '.join(RESUMES)}")
    return resume


class Training:
    """One training of a session by this process: what all `Session` objects opened for it share.

    Two `Session` objects, opened one after the other, may drive two optimizers. Once one of them
    has gone beyond its first step, a program that opens the session again begins another training.

    Attributes:
        opening: The key under which the training creates the session, or begins it again.
        has_moved: Whether any of its sessions was asked for more than its first step.
    """

    def __init__(
        self, launch: Launch, number: int = 0, former: frozenset[str] = frozenset()
    ) -> None:
        self.launch = launch
        self.opening = self._named = launch.key(number)
        self.has_moved = False
        self._number = number
        self._former = former
        self._own: set[tuple[int, str]] = set()
        self._restart: tuple[int, str, int] | None = None  # step, key and attempt of the newest
        self._unanswered: tuple[int, str] | None = None  # step and key of one that may still come

    def owns(self, info: SessionInfo) -> bool:
        """Return whether this training has opened the attempt that is running."""
        return info.attempt_key == self.opening or (info.attempt, info.attempt_key) in self._own

    def repeats(self, info: SessionInfo) -> bool:
        """Return whether an earlier training of this same process has opened the attempt."""
        return info.attempt_key in self._former

    def own(self, info: SessionInfo) -> None:
        """Record that the running attempt is this training's."""
        self._own.add((info.attempt, info.attempt_key))

    def renew(self, info: SessionInfo) -> None:
        """Take a key that no earlier start has used, where this process opens for all ranks.

        A launcher that returns to an earlier number of workers gives the new start the name of an
        earlier one. A process that has itself opened the attempt of such a name belongs to that
        earlier start, and keeps its key, by which it is fenced.
        """
        if info.attempt_key == self.opening:
            self.own(info)
        elif self._own or self._former:
            return
        elif info.attempt_key.startswith(f"{self._named}+"):
            self.opening = info.attempt_key
        elif self.launch.opened_before(info.attempt_key):
            self.opening = f"{self._named}+{info.attempt}"

    def key_for(self, step: int, attempt: int, *, alone: bool = False) -> str:
        """Return the key by which a session in an attempt goes back to a step.

        With it, the session joins an attempt that another session of the training has since opened
        at that step. A way back whose answer never came is taken again under its own key: the
        call for it may still be on its way, or have opened the attempt.

        Args:
            step: The first step that is trained again.
            attempt: The attempt that the session is in.
            alone: Whether this process decides for all ranks, so that no other needs the same key.
        """
        if self._restart is not None:
            at, key, opened = self._restart
            if at == step and attempt < opened:
                return key
        if self._unanswered is not None and self._unanswered[0] == step:
            return self._unanswered[1]
        self._number += 1
        return self.launch.key(drawn_key() if alone else self._number)

    @contextlib.contextmanager
    def asking(self, step: int, key: str) -> Iterator[None]:
        """Remember the key by which an attempt is opened at a step, until the server answers."""
        self._unanswered = (step, key)
        try:
            yield
        except REFUSALS:
            self._unanswered = None
            raise
        self._unanswered = None

    def move_on(self) -> None:
        """Note that one of its sessions is beyond its first step, or at another step."""
        self.has_moved = True

    def went_back(self, step: int, info: SessionInfo) -> None:
        """Record an attempt that one of its sessions has opened."""
        self.own(info)
        self._restart = (step, info.attempt_key, info.attempt)

    def successor(self) -> Training:
        """Return another training of the same session, with its own keys."""
        keys = {self.opening, *(key for _, key in self._own)}
        return Training(self.launch, self._number + 1, self._former | keys)


_trainings: dict[tuple[str, str], Training] = {}
_lock = ForkableLock()


def training_of(url: str, name: str, launch: Launch) -> Training:
    """Return the training to open a session for: one that has only just begun, or a new one."""
    with _lock:
        found = _trainings.get((url, name))
        if found is None or found.launch != launch:
            found = Training(launch)
        elif found.has_moved:
            found = found.successor()
        _trainings[url, name] = found
        return found


def explained(error: StaleAttemptError, key: str, launch: Launch) -> StaleAttemptError:
    """Return the error, explained where the launcher may have given two starts the same key."""
    if not launch.has_opened(key):
        return error
    return error.saying(
        f"{error.detail} If this is no old start of the job: its launcher calls it as it has called"
        " an earlier one, as torchrun does when it goes back to a number of workers. Open the"
        " session for all ranks at once, by open_session, RemoteLR.from_torch or RemoteLR.create,"
        " where the first rank takes another key; or call session.restart(step, key=...) with one"
        " that the ranks of this start alone share"
    )


@dataclass(frozen=True)
class Opener:
    """Who opens a session, and what must become of it if it was trained before.

    Attributes:
        resume: One of `RESUMES`.
        key: The key of the attempt in which the session would begin again.
        launch: The start of the job that it belongs to.
        leads: Whether it is the first rank.
        owns: Whether its own training opened the attempt that is running.
        repeats: Whether an earlier training of the same process opened it.
    """

    resume: str
    key: str
    launch: Launch
    leads: bool
    owns: bool = False
    repeats: bool = False

    @property
    def restarts(self) -> bool:
        """Whether the training must begin again, wherever it begins."""
        return self.resume == "restart"

    def begins_again(self, info: SessionInfo, step: int) -> bool:
        """Return whether a training at a step begins again a session that was trained before.

        Raises:
            ResumeError: The training would repeat a step without having been told to.
        """
        if step >= info.horizon or not self._is_anothers(info):
            return False
        continues = self._continues(info) and step == info.first_step
        if not self.restarts and not continues:
            raise ResumeError(_refusal(info, step))
        return True

    def reason(self, info: SessionInfo) -> str:
        """Return why the training may begin again."""
        return "its launcher has started it again" if self._continues(info) else "resume='restart'"

    def _continues(self, info: SessionInfo) -> bool:
        """Return whether an earlier start of this same job has trained the session."""
        return self.launch.opened_before(info.attempt_key)

    def _is_anothers(self, info: SessionInfo) -> bool:
        """Return whether another training, or an earlier start of this job, has trained it."""
        owns = self.owns or info.attempt_key == self.key
        if info.horizon <= info.first_step or self.resume == "continue" or owns:
            return False
        beside = self.launch.has_opened(info.attempt_key) and not self.repeats
        if beside and (self.launch.sure or not self.leads):
            return False  # another process of this start has trained it
        # Otherwise the first rank settles it, as the others know no key to join it by.
        return self.leads or bool(self.launch.run)


def _refusal(info: SessionInfo, step: int) -> str:
    return (
        f"session {info.name} was trained before: attempt {info.attempt}"
        f" (key {info.attempt_key or 'none'}) has handed out the steps below {info.horizon}, and"
        f" step {step} would be trained again with what was decided then. If this is another"
        " training, give it another name. If it is that one again, load its checkpoint before the"
        " first step (scheduler.load_state_dict(...), or step=N to Client.session), or begin it"
        f" again in a new attempt with resume='restart'. resume='continue' follows the values of"
        " then as they are. Where a launcher starts the job again by itself, PACESETTER_RUN says"
        " that it is the same one"
    )


@dataclass(frozen=True)
class Branch:
    """A session that will continue another one's past, once its first step is known.

    Attributes:
        name: The name of the session to create.
        body: The body of the call that creates it, without the step.
    """

    name: str
    body: Mapping[str, Any]

    def refusal(self, parent: str) -> ResumeError:
        """Return the error for a training that begins without stating its step."""
        return ResumeError(
            f"session {self.name} is to continue {parent}, and it is not known yet from which step:"
            f" load the checkpoint of {parent} before the first step"
            " (scheduler.load_state_dict(...), session.restart(N)), or pass step=N to"
            " Client.session"
        )
