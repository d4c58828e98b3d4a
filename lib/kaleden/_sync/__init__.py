"""`Session`: the client for plain code, which runs an `AsyncSession` in another thread."""

from __future__ import annotations

from kaleden._sync._generated import Session, SyncScope, SyncStreams
from kaleden._sync._session import Backend
from kaleden._sync._streams import SyncLogStream, SyncOutcomeStream

__all__ = ("Backend", "Session", "SyncLogStream", "SyncOutcomeStream", "SyncScope", "SyncStreams")
