"""How a session is opened: found or created, for a known training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from pacesetter._attempts import Branch, Opener, checked_resume, explained, training_of
from pacesetter._errors import (
    MOST_FIELDS,
    ConflictError,
    NotFoundError,
    PacesetterError,
    StaleAttemptError,
)
from pacesetter._info import SessionInfo
from pacesetter._launch import launched, leads
from pacesetter._pitfalls import log_pitfalls
from pacesetter._spec import differences, session_body

Ask = Callable[..., dict[str, Any]]
"""Asks the server: a method and a path, and with `body=` what is sent."""


class Opening:
    """One opening of a session, for a training of this process.

    Args:
        ask: The function that asks the server.
        url: The server's address.
        name: The session's name.
        rank: The rank under which it is opened.
        resume: What to do if it was trained before.
        for_all: Whether the process opens it for all ranks, whatever its own rank is.

    Attributes:
        name: The session's name.
        training: The training that it is opened for.
        leads: Whether this process is the first rank, or opens it for all of them.
    """

    def __init__(
        self, ask: Ask, url: str, name: str, *, rank: int, resume: str, for_all: bool = False
    ) -> None:
        self._ask = ask
        self.name = name
        self._resume = checked_resume(resume)
        self._launch = launched()
        self._for_all = for_all
        self.leads = for_all or leads(rank)
        self.training = training_of(url, name, self._launch)

    def find(self, description: Mapping[str, Any]) -> SessionInfo:
        """Return the session of that name; create it if need be, where it is described."""
        if description:
            return self.create(description)
        remedy = (
            "to create it, pass what describes it, such as base_lr=0.1 and "
            'schedule={"kind": "cosine", "total_steps": 1000}'
        )
        return self._known(self._found(self.name, remedy))

    def create(self, description: Mapping[str, Any]) -> SessionInfo:
        """Return the session of that description, which may be there already."""
        return self._known(self._created(session_body(self.name, description)))

    def find_branch(
        self, parent: str, description: Mapping[str, Any]
    ) -> tuple[SessionInfo, Branch | None]:
        """Return the session that continues another one; or that other one, and the branch to make.

        Raises:
            ConflictError: There is a session of that name that continues no such session, or by
                another description.
        """
        body = session_body(self.name, description)
        try:
            info = self._read(self.name)
        except NotFoundError:
            origin = self._found(parent, "continues= takes the name of one that was trained")
            return origin, Branch(self.name, self._fork_of(body))
        if info.branched_off(parent) is None:
            raise _conflict(
                f"session {self.name} exists already, and does not continue {parent}: choose"
                " another name for what is to, or leave continues= out"
            )
        described = {key: body[key] for key in body if key != "labels"}  # which operators change
        if found := differences(described, info.spec):
            raise _conflict(
                f"session {self.name} continues {parent} already, and differs in"
                f" {', '.join(found[:MOST_FIELDS])}: choose another name, or describe it as it was"
            )
        return self._known(info), None

    def _fork_of(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request to the parent, without the step."""
        named = {key: body[key] for key in ("name", "labels") if key in body}
        described = {key: body[key] for key in body if key not in named}
        fork = {**named, "attempt_key": self.training.opening}
        return {**fork, "description": described} if described else fork

    def _known(self, info: SessionInfo) -> SessionInfo:
        """Return the description; a session not trained yet is this training's from now on."""
        if self._for_all:
            self.training.renew(info)
        if info.horizon <= info.first_step:
            info = self._taken(info)
            self.training.own(info)
        return info

    def opener(self, info: SessionInfo | None = None) -> Opener:
        """Return the opener; `info` is the session as the server described it, if it has."""
        opener = Opener(self._resume, self.training.opening, self._launch, self.leads)
        if info is None:
            return opener
        training = self.training
        return replace(opener, owns=training.owns(info), repeats=training.repeats(info))

    def _created(self, body: Mapping[str, Any]) -> SessionInfo:
        key = self.training.opening
        try:
            answer = self._ask("POST", "/v1/sessions", body={**body, "attempt_key": key})
        except ConflictError as error:
            raise self._explained(error, body) from None
        log_pitfalls(self.name, answer)
        return SessionInfo.parse(answer, self.name)

    def _found(self, name: str, remedy: str) -> SessionInfo:
        """Return the session of that name; the error says how to create it in Python."""
        try:
            return self._read(name)
        except NotFoundError as error:
            if error.code != "session_not_found":
                raise
            raise error.saying(
                f"There is no session named {name!r}: {remedy}. client.sessions() lists those that "
                "there are"
            ) from None

    def _read(self, name: str) -> SessionInfo:
        return SessionInfo.parse(self._ask("GET", path_of(name)), name)

    def _taken(self, info: SessionInfo) -> SessionInfo:
        """Mark a session without a trained step as this job's, for its later starts."""
        launch = self._launch
        if not launch.run or launch.has_opened(info.attempt_key) or info.status != "active":
            return info
        body = {"step": info.horizon, "key": self.training.opening}
        return open_attempt(self._ask, self.name, body)

    def _explained(self, error: ConflictError, body: Mapping[str, Any]) -> ConflictError:
        """Return the error with what differs between a description and the session of that name."""
        try:
            stored = self._read(self.name)
        except PacesetterError:
            return error
        begins = {} if "template" in body else {"start_step": 0}  # as the server would have it
        found = differences({**begins, **body}, stored.spec)
        if error.code != "session_exists" or not found:
            return error
        return error.saying(
            f"session {self.name} exists already, and differs in {', '.join(found[:MOST_FIELDS])}:"
            f" {self._ways_out(stored, adopted=found[0].startswith('start_step '))}"
        )

    def _ways_out(self, stored: SessionInfo, *, adopted: bool) -> str:
        """Return what to do about a session of another description."""
        if adopted:
            return (
                f"it was made where a training stood, at step {stored.start_step}. To resume it,"
                f" open it by its name alone, RemoteLR(optimizer, client.session({self.name!r})),"
                " and load the checkpoint of that scheduler; or give another training another name"
            )
        return (
            "describe it as it was; or give another training another name. To go on from a"
            " checkpoint by this description, open Client.session('another-name',"
            f" continues={self.name!r}, ...); to stretch what is left of its curve, order `retime`"
        )


def _conflict(message: str) -> ConflictError:
    return ConflictError(message, status=409, code="session_exists")


def open_attempt(ask: Ask, name: str, body: Mapping[str, Any]) -> SessionInfo:
    """Open the attempt of a session whose step and key are in `body`.

    Raises:
        StaleAttemptError: A later attempt has taken over from the one of that key.
    """
    try:
        answer = ask("POST", path_of(name) + "/attempts", body=body)
    except StaleAttemptError as error:
        raise explained(error, body["key"], launched()) from None
    return SessionInfo.parse(answer, name)


def path_of(name: str) -> str:
    """Return the path of a session on the server.

    Raises:
        TypeError: The name is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"a session is named by a text, not by {name!r}")
    return "/v1/sessions/" + quote(name, safe="")
