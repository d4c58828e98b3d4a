"""Who carries a request, and is called back when that takes too long.

A timer for each request costs a fifth of all that a request costs here. So workers side by side
have couriers of one `TimeoutMonitor`, which sleeps until the first of them is overdue; as a rule it
looks once per time-out, and everybody has come back by then.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias, final

import anyio

from kaleden._wire import Request, Response

Send: TypeAlias = Callable[[Request], Awaitable[Response]]


class RequestTimeout(Protocol):
    """Carries one request at a time; each belongs to one task."""

    async def carry(self, send: Send, request: Request, due: float) -> Response | None:
        """Send *request*, and give it up at the time *due* of the event loop's clock.

        Returns:
            The reply; None if the courier was called back.
        """
        ...

    def call_back(self) -> None:
        """Give up the request that is on its way."""
        ...


@final
class OwnTimeout:
    """A courier with a timer of its own for each request."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    async def carry(self, send: Send, request: Request, due: float) -> Response | None:
        """Carry one request; see `RequestTimeout`."""
        with anyio.CancelScope(deadline=due) as self._scope:
            return await send(request)

        return None

    def call_back(self) -> None:
        """Give up the request that is on its way."""
        self._scope.cancel()


@final
class SharedTimeout:
    """A time-out that a `TimeoutMonitor` enforces: ``with timeout: ...`` around all its requests.

    One cancel scope serves all requests up to one that is given up.

    Attributes:
        due: when the request that is on its way is overdue; `math.inf` if none is.
    """

    __slots__ = ("_monitor", "_scope", "due")

    def __init__(self, watchdog: TimeoutMonitor) -> None:
        self._monitor = watchdog
        self._scope = anyio.CancelScope()
        self.due = math.inf

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._monitor.discard(self)
        return bool(self._scope.__exit__(kind, error, traceback))

    async def carry(self, send: Send, request: Request, due: float) -> Response | None:
        """Carry one request; see `RequestTimeout`."""
        self.due = due
        if due < self._monitor.wakes:
            self._monitor.wake_at(due)
        try:
            response = await send(request)
        except BaseException as error:
            self.due = math.inf
            if self._scope.cancel_called and self._renew(error):
                return None
            raise

        self.due = math.inf
        if self._scope.cancel_called:
            # Called back when the reply was there already: the next request is not to suffer.
            self._renew(None)
        return response

    def _renew(self, error: BaseException | None) -> bool:
        """Leave the scope and enter a new one; tell whether *error* was the old one's doing."""
        scope, self._scope = self._scope, anyio.CancelScope()
        try:
            return bool(scope.__exit__(type(error) if error else None, error, None))
        finally:
            self._scope.__enter__()

    def call_back(self) -> None:
        """Give up the request that is on its way."""
        self._scope.cancel()


@final
class TimeoutMonitor:
    """Calls back the couriers that are overdue, each at its time.

    Attributes:
        wakes: when it looks next; `math.inf` while nothing is on its way.
    """

    def __init__(self) -> None:
        self.wakes = math.inf
        self._timeouts: set[SharedTimeout] = set()
        self._changed = anyio.Event()

    def new_timeout(self) -> SharedTimeout:
        """Make one more courier; to be done before `watch`."""
        courier = SharedTimeout(self)
        self._timeouts.add(courier)
        return courier

    def discard(self, courier: SharedTimeout) -> None:
        """Hear that *courier* carries nothing more."""
        self._timeouts.discard(courier)
        if not self._timeouts:
            self._changed.set()

    def wake_at(self, due: float) -> None:
        """Look at the time *due*, or earlier."""
        self.wakes = due
        self._changed.set()

    async def run(self) -> None:
        """Watch over the couriers until the last of them is dismissed."""
        while self._timeouts:
            with anyio.CancelScope(deadline=self.wakes):
                await self._changed.wait()
            self._changed = anyio.Event()
            self._look(anyio.current_time())

    def _look(self, now: float) -> None:
        for courier in self._timeouts:
            if courier.due <= now:
                courier.call_back()

        self.wakes = min(
            (courier.due for courier in self._timeouts if courier.due > now), default=math.inf
        )
