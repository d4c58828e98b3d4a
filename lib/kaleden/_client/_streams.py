"""The streaming variants of the methods over many sessions."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeAlias, TypeVar, final, overload

from kaleden._engine import _operations
from kaleden._engine._engine import OutcomeStream
from kaleden._engine._targets import Ids, as_keys
from kaleden._results._progress import ProgressCallback
from kaleden._sessions._components import Components
from kaleden._sessions._monitor._unknown import UnknownIds
from kaleden._sessions._monitor._wait import Until
from kaleden._wire import TERMINAL_STATUSES, Event, SessionInfo

T = TypeVar("T")
Results: TypeAlias = AbstractAsyncContextManager[OutcomeStream[T]]


@final
class Streams:
    """Operations that yield outcomes: ``async with session.stream.info(ids) as results: ...``.

    Inside the block, ``async for outcome in results`` yields one `Success` or `Failure` for each
    id, as soon as it is known, so the order is not that of the ids. Memory does not grow with the
    number of ids, which may come from a generator: outcomes are not kept, and an id that occurs
    twice is requested twice. A slow loop slows the requests down. No request is sent before the
    block is entered.

    An error that is raised in the block, or by the iterable of ids, is raised unchanged.

    Cancellation:
        Leaving the block early, by ``break``, an error or a cancellation, cancels the requests in
        flight and releases their slots at once. The outcomes received before are valid.
    """

    __slots__ = ("_engine", "_limits", "_sessions", "_waiter")

    def __init__(self, components: Components) -> None:
        self._engine = components.engine
        self._limits = components.limits
        self._sessions = components.sessions
        self._waiter = components.waiter

    @overload
    def info(self, ids: Ids, *, raw: Literal[False] = False) -> Results[SessionInfo]: ...

    @overload
    def info(self, ids: Ids, *, raw: Literal[True]) -> Results[dict[str, Any]]: ...

    @overload
    def info(self, ids: Ids, *, raw: bool) -> Results[SessionInfo] | Results[dict[str, Any]]: ...

    def info(self, ids: Ids, *, raw: bool = False) -> Results[Any]:
        """Stream the details of each session; see `AsyncSession.info`."""
        operation = _operations.raw_info if raw else _operations.info
        return self._engine.stream(operation(self._limits), as_keys(ids))

    def logs(self, ids: Ids, *, max_bytes: int | None = None) -> Results[str]:
        """Stream the output of each session; see `AsyncSession.logs`."""
        operation = UnknownIds(self._sessions).check_logs(_operations.logs(self._limits, max_bytes))
        return self._engine.stream(operation, as_keys(ids))

    def events(self, ids: Ids) -> Results[tuple[Event, ...]]:
        """Stream the platform events of each session; see `AsyncSession.events`."""
        operation = UnknownIds(self._sessions).check_events(_operations.events(self._limits))
        return self._engine.stream(operation, as_keys(ids))

    def renew(self, ids: Ids) -> Results[bool]:
        """Stream the renewal of each session; see `AsyncSession.renew`."""
        operation = UnknownIds(self._sessions).check_renew(_operations.renew(self._limits))
        return self._engine.stream(operation, as_keys(ids))

    def wait(
        self,
        ids: Ids,
        until: Until = TERMINAL_STATUSES,
        *,
        pending_timeout: float | None = None,
        progress: ProgressCallback | None = None,
    ) -> Results[SessionInfo]:
        """Stream each session as it reaches *until*; see `AsyncSession.wait`."""
        return self._waiter.stream(
            as_keys(ids), until, pending_timeout=pending_timeout, progress=progress
        )
