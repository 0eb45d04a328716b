"""How a window's values are written to an optimizer's param groups, and what these hold then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pacesetter._channels import Left, driven_channels, left_alone, remember, said_of
from pacesetter._errors import GroupError, LRMismatchError
from pacesetter._groups import (
    ALL,
    Columns,
    Names,
    ParamGroup,
    Put,
    close,
    holds,
    is_tensor,
    join,
    match,
    read_back,
    series_of,
    writers,
)
from pacesetter._info import SessionInfo
from pacesetter._torch.tensors import refuse_shared, unshared
from pacesetter._window import Window

MOST_NAMED = 4
"""Param groups that one message names."""


def check_fit(groups: Sequence[ParamGroup], description: Mapping[str, Any]) -> None:
    """Check that a session to be created would fit an optimizer.

    What a template or a parent says of groups is not known here.

    Args:
        groups: The optimizer's param groups.
        description: The description of the session.

    Raises:
        GroupError: It would not fit.
    """
    described = description.get("groups")
    if described or not {"template", "continues"} & set(description):
        refuse_shared(groups, match(groups, tuple(described or ()), None), ("lr",))


class Writing:
    """Writes steps of one window after the other to param groups, and checks what they hold.

    Attributes:
        names: The session group of each param group; empty names for a session without groups, None
            for a param group that keeps its own rate.
        groups: The list that was written to; None before the first window.
        count: How many param groups it had.
        shared: One column for all param groups, where they share one.
        rows: Otherwise a row per step with a learning rate for each group, where only plain
            learning rates are written, and to the first groups. Without either, `write` does the
            work.
    """

    names: Names = ()
    count: int
    groups: list[ParamGroup] | None
    shared: Sequence[float] | None
    rows: list[tuple[float, ...]] | None
    _left: Left = ()
    _known: tuple[ParamGroup, ...] = ()  # those that `names` are of
    _list: Sequence[ParamGroup] | None = None  # that they were in
    _puts: list[list[tuple[Put, Sequence[float]]]]
    _window: Window | None

    def __init__(self, info: SessionInfo, wished: Sequence[str | None] | None) -> None:
        self.follow(info)
        self._wished = wished
        self._slots = ("lr", "betas") if "momentum" in driven_channels(info.series) else ("lr",)
        self.forget()

    def follow(self, info: SessionInfo) -> None:
        """Write another session of the same series from now on, such as a continuation."""
        self._info = info
        self._session, self._series, self._own_laws = info.groups, info.series, info.own_laws

    def match(self, groups: Sequence[ParamGroup]) -> GroupError | None:
        """Find the session group of each param group; return why that is impossible."""
        try:
            names = match(groups, self._session, self._wished)
            self._left = left_alone(groups, names, self._series, self._own_laws)
            refuse_shared(groups, names, self._slots)
        except GroupError as error:
            return error
        self.names = names
        self._know(groups)
        return None

    def _know(self, groups: Sequence[ParamGroup]) -> None:
        """Remember the param groups themselves, not only their number."""
        self._known, self._list = tuple(groups), groups

    def moved(self, groups: Sequence[ParamGroup]) -> int | None:
        """Return the first place at which there is another param group than before; None if none.

        After a load all of them are others, in another list, and each is in the place of the one
        that it was saved from.
        """
        known = set(map(id, self._known))
        if groups is not self._list and known.isdisjoint(map(id, groups)):
            return None
        for at, (before, now) in enumerate(zip(self._known, groups)):  # noqa: B905 - some may be added
            # A wrapper may load a group as another one that has the same list of parameters.
            if now is not before and now["params"] is not before["params"]:
                return at
        return None

    def join(self, groups: Sequence[ParamGroup]) -> list[str]:
        """Take in param groups that were added; return messages about them."""
        since = len(self.names)
        self.names = join(groups, self.names, self._session, self._wished)
        self._left = left_alone(groups, self.names, self._series, self._own_laws, known=self._left)
        own = [str(at) for at in range(since, len(groups)) if self.names[at] is None]
        said = []
        if own:
            said.append(self._undriven(", ".join(own)))
        if channels := said_of(self._left, since):
            said.append(f"param groups that were added keep {channels} as it is")
        return said

    @property
    def first_words(self) -> list[str]:
        """The messages at the start about how the optimizer is driven."""
        said = []
        if left := said_of(self._left):
            said.append(f"the param groups that have none keep {left} at 0")
        if missing := self.missing:
            said.append(
                f"the optimizer does not have {', '.join(missing)} yet: a param group of that name "
                "is driven once it is added"
            )
        return said

    @property
    def missing(self) -> list[str]:
        """The groups of the session that the optimizer may still get."""
        if self._wished is None:
            return [name for name in self._session if name not in self.names]
        return [name for name in self._wished[len(self.names) :] if name is not None]

    def take_bases(
        self, groups: Sequence[ParamGroup], rates: Sequence[float], *, anew: bool = False
    ) -> None:
        """Set `initial_lr` in each param group, as torch's schedulers do; `anew` overwrites it."""
        for group, base, rate in zip(groups, self._bases(), rates, strict=True):
            if anew and base is not None:
                group["initial_lr"] = base
            group.setdefault("initial_lr", rate if base is None else base)

    def overwritten(self, made_with: Sequence[float], rates: Sequence[float]) -> str:
        """Return a message if the optimizer was made with other rates than the session has."""
        every = [
            f"{own!r} (param group {at}: {base!r} in the session)"
            for at, (own, base, rate) in enumerate(
                zip(made_with, self._bases(), rates, strict=True)
            )
            if base is not None and not close(own, base) and not close(own, rate)
        ]
        if not every:
            return ""
        differing = every[:MOST_NAMED] + [f"{len(every) - MOST_NAMED} more"] * (
            len(every) > MOST_NAMED
        )
        return (
            f"the optimizer was made with the learning rate {', '.join(differing)}, and the "
            "session's is trained with: give the optimizer that one, or have the session take the "
            'optimizer\'s, by RemoteLR.create(optimizer, name, base_lr="optimizer")'
        )

    def _bases(self) -> list[float | None]:
        """Return the session's base for each param group; None for one that it does not drive."""
        base = self._info.base_lr
        return [None if name is None else base(name or None) for name in self.names]

    def unshare(self, groups: Sequence[ParamGroup]) -> list[str]:
        """Unshare the tensors of added or loaded param groups; return messages about that."""
        return unshared(groups, self.names, self._slots)

    def forget(self) -> None:
        """Hold nothing of any window."""
        self.groups = self.shared = self.rows = self._window = None
        self.count = 0
        self._puts = []

    def enter(self, window: Window, groups: list[ParamGroup]) -> None:
        """Find out how to write the param groups, once for a whole window."""
        remember(groups, self._series)
        self._puts = [
            [] if name is None else writers(group, name, window.columns, left)
            for group, name, left in zip(groups, self.names, self._left, strict=True)
        ]
        columns = [window.columns[series_of(name)] for name in self.names if name is not None]
        first = self._puts[: len(columns)]
        plain = all(len(puts) == 1 for puts in first) and not any(
            is_tensor(group["lr"]) for group in groups[: len(columns)]
        )
        one = len(columns) == len(groups) and all(column is columns[0] for column in columns)
        self.shared = columns[0] if plain and one else None
        if not plain or self.shared is not None:
            self.rows = None
        elif window is not self._window or self.rows is None or len(groups) != self.count:
            self.rows = list(zip(*columns, strict=True))
        self._know(groups)
        self._window = window
        self.groups = groups
        self.count = len(groups)

    def write(self, groups: Sequence[ParamGroup], index: int) -> None:
        """Write the values at an index of the window, whatever they are."""
        for group, puts in zip(groups, self._puts):  # noqa: B905 - counted by who calls
            for put, column in puts:
                put(group, column[index])

    def rates(self, groups: Sequence[ParamGroup], columns: Columns, index: int) -> list[float]:
        """Return the rates of a step, one for each param group: its own, where it keeps that."""
        names = (*self.names, *[None] * (len(groups) - len(self.names)))
        return [
            float(group["lr"]) if name is None else columns[series_of(name)][index]
            for group, name in zip(groups, names, strict=False)
        ]

    def unfit(self, groups: Sequence[ParamGroup]) -> GroupError | None:
        """Return why the param groups can no longer be written, if they have changed."""
        if len(groups) != len(self.names):
            return GroupError(
                f"the optimizer has {len(groups)} param groups now, it had {len(self.names)}: put "
                "back what was removed, or build RemoteLR again, which goes on at this step"
            )
        if (at := self.moved(groups)) is not None:
            return GroupError(
                f"param group {at} of the optimizer is another one than before, so it would be "
                "trained with that one's rate: put back what was removed or moved, or build "
                "RemoteLR again, which goes on at this step"
            )
        nothing: dict[str, list[float]] = {name: [] for name in self._series}
        try:
            for group, name, left in zip(groups, self.names, self._left, strict=True):
                if name is not None:
                    writers(group, name, nothing, left)
        except GroupError as error:
            return error
        return None

    def mismatch(self, groups: Sequence[ParamGroup], index: int) -> LRMismatchError | None:
        """Return what something else has written to the param groups since a step."""
        window = self._window
        if window is None or not self._wrote(groups):
            return None
        written = self._written(window, index)
        for at, (group, name, wanted) in enumerate(zip(groups, self.names, written, strict=False)):
            if name is not None and not holds(group, wanted):
                return LRMismatchError(
                    f"param group {at} has the learning rate {group['lr']}, and {wanted!r} was "
                    f"written for step {window.start + index}: something else writes it. Remove "
                    "the other scheduler, or change the rate on the server, or pass verify=False"
                )
        return None

    def held(self, groups: Sequence[ParamGroup], index: int) -> dict[str, Any]:
        """Return what the param groups hold, by series, at a step whose values are the server's."""
        window = self._window
        if window is None or not window.sealed or not self._wrote(groups):
            return {}
        return read_back(groups, self.names, self._written(window, index))

    def _written(self, window: Window, index: int) -> list[float]:
        """Return what was written to the param groups that there were then."""
        return [
            0.0 if name is None else window.columns[series_of(name)][index]
            for name in self.names[: self.count]
        ]

    def _wrote(self, groups: Sequence[ParamGroup]) -> bool:
        """Return whether these are what was written to; what was loaded has its own rates."""
        return groups is self.groups and self.moved(groups) is None

    def _undriven(self, added: str) -> str:
        if self._session:
            remedy = (
                f'give it a "name" that the session has ({", ".join(self._session)}) before it is '
                "added, or build RemoteLR again with groups=[...] for all param groups"
            )
        else:
            remedy = f"build RemoteLR again with groups=[{ALL!r}, {ALL!r}, ...], one for each"
        return (
            f"param group {added} was added to the optimizer and keeps its own learning rate, "
            f"since the session was not told of it: to have it driven, {remedy}; RemoteLR goes on "
            "at this step then. None in groups= is for a param group that keeps its own rate"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy writes to other param groups, so it holds nothing of these.
        forgotten = dict.fromkeys(("groups", "shared", "rows", "_window", "_list"))
        return {**vars(self), **forgotten, "count": 0, "_puts": [], "_known": ()}
