"""Pacesetter's client: learning rates that a server owns, for trainings that must not stop."""

import typing as _typing

from pacesetter._client import Client
from pacesetter._columns import Columns
from pacesetter._errors import (
    APIError,
    AuthenticationError,
    AwaitingMeasurementError,
    ClosedError,
    ConflictError,
    ForeignAnswerError,
    GroupError,
    HistoryLostError,
    InvalidAnswerError,
    InvalidRequestError,
    LRMismatchError,
    NotFoundError,
    PacesetterError,
    PermissionDeniedError,
    RankFailedError,
    RankMismatchError,
    ResumeError,
    ServerError,
    ServerUnavailableError,
    SessionFinishedError,
    StaleAttemptError,
    StateMismatchError,
    TransportError,
    UnsupportedSchedulerError,
)
from pacesetter._info import SessionInfo
from pacesetter._merge import Merge
from pacesetter._notices import Notice
from pacesetter._outage import Outage, OutagePolicy
from pacesetter._plan import Plan
from pacesetter._range_test import RangeTest
from pacesetter._session import Session
from pacesetter._spec import Description
from pacesetter._window import Window

if _typing.TYPE_CHECKING:
    from pacesetter._async_client import AsyncClient

__all__ = [
    "APIError",
    "AsyncClient",
    "AuthenticationError",
    "AwaitingMeasurementError",
    "Client",
    "ClosedError",
    "Columns",
    "ConflictError",
    "Description",
    "ForeignAnswerError",
    "GroupError",
    "HistoryLostError",
    "InvalidAnswerError",
    "InvalidRequestError",
    "LRMismatchError",
    "Merge",
    "NotFoundError",
    "Notice",
    "Outage",
    "OutagePolicy",
    "PacesetterError",
    "PermissionDeniedError",
    "Plan",
    "RangeTest",
    "RankFailedError",
    "RankMismatchError",
    "ResumeError",
    "ServerError",
    "ServerUnavailableError",
    "Session",
    "SessionFinishedError",
    "SessionInfo",
    "StaleAttemptError",
    "StateMismatchError",
    "TransportError",
    "UnsupportedSchedulerError",
    "Window",
    "__version__",
]


def __getattr__(name: str) -> _typing.Any:  # noqa: ANN401 - of each name something else
    if name == "AsyncClient":
        from pacesetter._async_client import AsyncClient  # noqa: PLC0415 - trainings need no asyncio

        return AsyncClient
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely wanted

    return version("pacesetter")
