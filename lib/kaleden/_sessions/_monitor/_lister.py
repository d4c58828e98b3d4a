"""The shared list of sessions: tasks that ask at the same time share one request."""

from __future__ import annotations

from functools import partial
from typing import final

import anyio
import anyio.lowlevel
from attrs import define, evolve, field

from kaleden._engine import _operations
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._errors import RequestError
from kaleden._results._batch import Failure, Outcome, Success
from kaleden._sessions._monitor._history import SessionHistory, Snapshot


@define(eq=False)
class _PendingList:
    """A list request in flight."""

    began: float
    first: bool = False
    done: anyio.Event = field(factory=anyio.Event)
    error: RequestError | None = None


@final
class SharedList:
    """Shares list requests among the tasks of a client.

    On the server a list of all sessions costs as much as a query of one, so every component that
    watches, verifies or looks for a session uses it.

    Args:
        engine: sends the requests.
        limits: the time-out of a request.
        kind: the kind of session to list; None for all kinds that are listed by default.

    Attributes:
        history: the record of what the lists have shown.
        last: the last list; None before the first.
    """

    def __init__(self, engine: Engine, limits: Limits, kind: str | None = None) -> None:
        self._engine = engine
        self._operation = _operations.fetch(limits, kind, retry=False)
        self._pending: _PendingList | None = None
        self.history: SessionHistory = SessionHistory(limits.settle)
        self.last: Snapshot | None = None

    async def since(self, time: float, *, first: bool = False) -> Snapshot:
        """Return a list whose request began at *time* or later; it is not retried.

        Args:
            time: on the clock of the event loop, not in the future.
            first: whether the request is sent before all others that wait, and without waiting for
                an earlier list.

        Raises:
            RequestError: the request failed, for every task that shared it.

        Cancellation:
            If other tasks share this task's request, one of them sends another.
        """
        while self.last is None or self.last.began < time:
            pending = self._pending
            if pending is None or (first and not pending.first and pending.began < time):
                await self._fetch(first=first)
                continue

            await pending.done.wait()
            if pending.error is not None and pending.began >= time:
                raise pending.error.failure.to_exception()

        await anyio.lowlevel.checkpoint()
        return self.last

    async def since_with_retry(self, time: float) -> Snapshot:
        """Return such a list, and retry the request if it fails.

        For callers that need one list. A caller that polls uses `since`, since its next poll is
        the retry.

        Raises:
            RequestError: the last request failed.

        Cancellation:
            See `since`.
        """
        attempt = partial(self._try_since, time)
        outcome = await attempt()
        if isinstance(outcome, Failure):
            outcome = await self._engine.retrier.retry(outcome, attempt)
        if isinstance(outcome, Failure):
            raise outcome.to_exception()

        return outcome.value

    async def _try_since(self, time: float, _: object = None) -> Outcome[Snapshot]:
        try:
            return Success("fetch", await self.since(time))
        except RequestError as error:
            return error.failure

    async def _fetch(self, *, first: bool) -> None:
        pending = self._pending = _PendingList(anyio.current_time(), first)
        try:
            listing = await self._engine.request(evolve(self._operation, first=first))
        except RequestError as error:
            self.history.record_failure()
            # A pause that ends after this task's deadline fails this task only: another one sends
            # the request.
            if error.failure.attempts:
                pending.error = error
            raise
        else:
            # An application of a desktop has the desktop's id, and an id of its own.
            sessions = {info.app_id or info.id: info for info in listing.sessions if info.id}
            unreadable = len(listing.malformed) + sum(not info.id for info in listing.sessions)
            # An earlier list may come after a later one that did not wait for it.
            if self.last is None or self.last.began < pending.began:
                self.last = self.history.record_list(pending.began, sessions, unreadable)
        finally:
            if self._pending is pending:
                self._pending = None
            pending.done.set()
