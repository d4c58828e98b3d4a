"""Time-outs of single requests.

A cancel scope with a timer for each request costs a fifth of all processor time that a request
costs. So workers that run side by side share one `TimeoutMonitor`, which sleeps until the first of
their requests is overdue; usually it wakes once in each time-out and finds none.
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
    """Bounds one request at a time; each instance belongs to one task."""

    async def run(self, send: Send, request: Request, due: float) -> Response | None:
        """Send *request*, and cancel it at the time *due* of the event loop's clock.

        Returns:
            The response; None if the request was cancelled by the time-out or by `cancel`.
        """
        ...

    def cancel(self) -> None:
        """Cancel the request that is in flight."""
        ...


@final
class OwnTimeout:
    """A time-out with a timer of its own for each request.

    Attributes:
        is_used: whether a request was sent.
    """

    __slots__ = ("_scope", "is_used")

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self.is_used = False

    async def run(self, send: Send, request: Request, due: float) -> Response | None:
        """Send one request; see `RequestTimeout`."""
        self.is_used = True
        with anyio.CancelScope(deadline=due) as self._scope:
            return await send(request)

        return None

    def cancel(self) -> None:
        """Cancel the request that is in flight."""
        self._scope.cancel()


@final
class SharedTimeout:
    """A time-out that a `TimeoutMonitor` enforces: ``with timeout: ...`` around all its requests.

    One cancel scope serves all requests, until one of them is cancelled; then a new scope is
    entered.

    Attributes:
        due: when the request in flight is overdue; `math.inf` if there is none.
    """

    __slots__ = ("_monitor", "_scope", "due")

    def __init__(self, monitor: TimeoutMonitor) -> None:
        self._monitor = monitor
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

    async def run(self, send: Send, request: Request, due: float) -> Response | None:
        """Send one request; see `RequestTimeout`."""
        self.due = due
        if due < self._monitor.wakes:
            self._monitor.wake_at(due)
        try:
            response = await send(request)
        except BaseException as error:
            self.due = math.inf
            if self._scope.cancel_called and self._renew_scope(error):
                return None
            raise

        self.due = math.inf
        if self._scope.cancel_called:
            # The response came before the cancellation was delivered. The next request must not
            # be cancelled in its place.
            self._renew_scope(None)
        return response

    def _renew_scope(self, error: BaseException | None) -> bool:
        """Leave the scope and enter a new one; return whether the old one caused *error*."""
        scope, self._scope = self._scope, anyio.CancelScope()
        try:
            return bool(scope.__exit__(type(error) if error else None, error, None))
        finally:
            self._scope.__enter__()

    def cancel(self) -> None:
        """Cancel the request that is in flight."""
        self._scope.cancel()


@final
class TimeoutMonitor:
    """Cancels the requests of its time-outs that are overdue, each at its time.

    Attributes:
        wakes: when it checks next, on the clock of the event loop; `math.inf` for never.
    """

    def __init__(self) -> None:
        self.wakes = math.inf
        self._timeouts: set[SharedTimeout] = set()
        self._changed = anyio.Event()

    def new_timeout(self) -> SharedTimeout:
        """Make one more time-out; to be called before `run`."""
        timeout = SharedTimeout(self)
        self._timeouts.add(timeout)
        return timeout

    def discard(self, timeout: SharedTimeout) -> None:
        """Forget *timeout*, which sends nothing more."""
        self._timeouts.discard(timeout)
        if not self._timeouts:
            self._changed.set()

    def wake_at(self, due: float) -> None:
        """Check at the time *due*, or earlier."""
        self.wakes = due
        self._changed.set()

    async def run(self) -> None:
        """Enforce the time-outs until the last of them is discarded."""
        while self._timeouts:
            with anyio.CancelScope(deadline=self.wakes):
                await self._changed.wait()
            self._changed = anyio.Event()
            self._cancel_overdue(anyio.current_time())

    def _cancel_overdue(self, now: float) -> None:
        for timeout in self._timeouts:
            if timeout.due <= now:
                timeout.cancel()

        self.wakes = min(
            (timeout.due for timeout in self._timeouts if timeout.due > now), default=math.inf
        )
