"""`Session`: the client for plain code, a thin facade over `AsyncSession` in another thread."""

from __future__ import annotations

from kaleden._sync._client import Backend
from kaleden._sync._scope import SyncScope
from kaleden._sync._session import Session
from kaleden._sync._streams import SyncLogStream, SyncOutcomeStream, SyncStreams

__all__ = (
    "Backend",
    "Session",
    "SyncLogStream",
    "SyncOutcomeStream",
    "SyncScope",
    "SyncStreams",
)
