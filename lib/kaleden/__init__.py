"""Start, watch and end compute sessions on the CANFAR Science Platform, from trio or asyncio."""

from __future__ import annotations

import typing as _typing

from kaleden import distributed
from kaleden._auth import ConnectionInfo, DiscoveryStep
from kaleden._client._runtime import SessionStatistics
from kaleden._client._session import AsyncSession
from kaleden._client._streams import Streams
from kaleden._engine._config import RetryPolicy
from kaleden._engine._engine import OutcomeStream
from kaleden._engine._limiter import LimiterStatistics
from kaleden._engine._retry import RetryStatistics
from kaleden._errors import (
    BadRequest,
    CallTimedOut,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    FailureKind,
    InvalidRequest,
    KaledenError,
    NotAuthenticated,
    NotAuthorized,
    NotDestroyed,
    NotFound,
    NotOpened,
    PendingTimeout,
    ProtocolError,
    QuotaExceeded,
    RequestError,
    ScopeClosed,
    ScopeError,
    ServerError,
    SessionFailed,
    SessionForked,
    SessionNotOpen,
    TimedOut,
    Unavailable,
    UnknownEffect,
    Vanished,
    WrongEventLoop,
    WrongState,
    WrongThread,
)
from kaleden._http import TransportStatistics
from kaleden._public import load_later as _load_later
from kaleden._public import publish as _publish
from kaleden._results._batch import BatchError, Failure, FinishedSession, Outcome, Outcomes, Success
from kaleden._results._progress import ProgressCallback, ProgressUpdate
from kaleden._results._session_list import SessionList
from kaleden._sessions._ledger._file import LedgerError
from kaleden._sessions._monitor._follow import LogItem, LogLine, LogReset, LogStream
from kaleden._sessions._owned_sessions import ScopeStatistics
from kaleden._sessions._scope import Scope
from kaleden._version import __version__ as __version__
from kaleden._wire import (
    TERMINAL_STATUSES,
    Availability,
    Event,
    Image,
    PlatformStats,
    ResourceOptions,
    SessionInfo,
    SessionKind,
    SessionSpec,
    SessionStatus,
)

if _typing.TYPE_CHECKING:
    from kaleden._sync import Session, SyncLogStream, SyncOutcomeStream, SyncScope, SyncStreams

__all__ = (
    "TERMINAL_STATUSES",
    "AsyncSession",
    "Availability",
    "BadRequest",
    "BatchError",
    "CallTimedOut",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionInfo",
    "ConnectionLost",
    "DiscoveryStep",
    "Event",
    "Failure",
    "FailureKind",
    "FinishedSession",
    "Image",
    "InvalidRequest",
    "KaledenError",
    "LedgerError",
    "LimiterStatistics",
    "LogItem",
    "LogLine",
    "LogReset",
    "LogStream",
    "NotAuthenticated",
    "NotAuthorized",
    "NotDestroyed",
    "NotFound",
    "NotOpened",
    "Outcome",
    "OutcomeStream",
    "Outcomes",
    "PendingTimeout",
    "PlatformStats",
    "ProgressCallback",
    "ProgressUpdate",
    "ProtocolError",
    "QuotaExceeded",
    "RequestError",
    "ResourceOptions",
    "RetryPolicy",
    "RetryStatistics",
    "Scope",
    "ScopeClosed",
    "ScopeError",
    "ScopeStatistics",
    "ServerError",
    "Session",
    "SessionFailed",
    "SessionForked",
    "SessionInfo",
    "SessionKind",
    "SessionList",
    "SessionNotOpen",
    "SessionSpec",
    "SessionStatistics",
    "SessionStatus",
    "Streams",
    "Success",
    "SyncLogStream",
    "SyncOutcomeStream",
    "SyncScope",
    "SyncStreams",
    "TimedOut",
    "TransportStatistics",
    "Unavailable",
    "UnknownEffect",
    "Vanished",
    "WrongEventLoop",
    "WrongState",
    "WrongThread",
    "distributed",
)

_LATER = ("Session", "SyncLogStream", "SyncOutcomeStream", "SyncScope", "SyncStreams")

_publish(__name__, set(__all__).difference(_LATER), globals())

# Hidden from type checkers, which would accept any attribute name of a module with `__getattr__`.
if not _typing.TYPE_CHECKING:
    # Loaded on first access, as asynchronous programs do not need the synchronous client.
    __getattr__ = _load_later(globals(), "kaleden._sync", _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
