"""One list for everybody who needs to know how all sessions stand."""

from __future__ import annotations

from typing import final

import anyio
import anyio.lowlevel
from attrs import define, field, frozen

from kaleden._engine import _operations
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._errors import RequestError
from kaleden._wire import SessionInfo


@final
@frozen
class Snapshot:
    """All sessions of one list.

    Attributes:
        began: when its request began, on the clock of the event loop. What was done before that
            shows in it; of what was done since, its silence proves nothing.
        sessions: the sessions by their ids; applications of desktops by their own.
        unreadable: how many elements of the list are no sessions, or tell no id.
    """

    began: float
    sessions: dict[str, SessionInfo] = field(repr=False)
    unreadable: int = 0


@define(eq=False)
class _PendingList:
    """A list that is on its way."""

    began: float
    done: anyio.Event = field(factory=anyio.Event)
    error: RequestError | None = None


@final
class SharedList:
    """Shares lists among tasks: those who ask at the same time are served by one request.

    On the server a list costs as much as a question about one session, so whoever watches,
    verifies or looks for something asks here.

    Args:
        engine: sends the requests.
        limits: how long one may take.
        kind: what to list; None for all that is listed without asking for a kind.
    """

    def __init__(self, engine: Engine, limits: Limits, kind: str | None = None) -> None:
        self._engine = engine
        self._operation = _operations.fetch(limits, kind, retry=False)
        self._pending: _PendingList | None = None
        self._last: Snapshot | None = None

    async def since(self, since: float) -> Snapshot:
        """Get a list that began at *since* or later.

        Args:
            since: a time of the event loop's clock, not in the future.

        Raises:
            RequestError: the list failed; everybody who shared it is told.

        Cancellation:
            If this task's request served others too, one of them asks again.
        """
        while self._last is None or self._last.began < since:
            flight = self._pending
            if flight is None:
                await self._fetch()
                continue

            await flight.done.wait()
            if flight.error is not None and flight.began >= since:
                raise flight.error.failure.to_exception()

        await anyio.lowlevel.checkpoint()
        return self._last

    async def since_with_retry(self, since: float) -> Snapshot:
        """Get such a list, and try again after what may pass.

        It is for those who need one list. Who looks again and again has a pace of his own, and
        takes a failure for one look that showed nothing.

        Raises:
            RequestError: the last list failed.

        Cancellation:
            As of `listed`.
        """
        started, attempts = anyio.current_time(), 0
        while True:
            try:
                return await self.since(since)
            except RequestError as error:
                attempts += 1
                if not await self._engine.retrier.backoff(error.failure, attempts, started):
                    raise

    async def _fetch(self) -> None:
        flight = self._pending = _PendingList(anyio.current_time())
        try:
            listing = await self._engine.request(self._operation)
        except RequestError as error:
            flight.error = error
            raise
        else:
            # An application of a desktop has the desktop's id, and one of its own.
            sessions = {info.app_id or info.id: info for info in listing.sessions if info.id}
            unreadable = len(listing.malformed) + sum(not info.id for info in listing.sessions)
            self._last = Snapshot(flight.began, sessions, unreadable)
        finally:
            self._pending = None
            flight.done.set()
