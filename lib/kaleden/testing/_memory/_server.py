"""The server of a platform in memory. It handles requests and injects faults.

Like a real server, it has its own tasks: if a client abandons a request, the server may still
finish it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NoReturn, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from kaleden._errors import FailureKind
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from kaleden.testing import _canned_responses as canned
from kaleden.testing._faults import Fault, FaultKind, FaultSchedule
from kaleden.testing._memory._world import World

POINTS: Final = ("arrived", "before-effect", "after-effect", "before-reply", "mid-reply", "closing")
"""The points that a request passes, in order.

The last one is in the client, after it has received the whole response.
"""

Abandoned: TypeAlias = Literal["finishes", "dies"]
OnPoint: TypeAlias = Callable[[str, Request], None]

# The default time that the server takes for a request, in seconds.
_LATENCY = 0.06
_LATENCIES: Mapping[str, float] = {"create": 0.6}
# The number of equal parts of the latency: one before each point except the last.
_GAPS = 5


@define(eq=False)
class Exchange:
    """One request at the server, which may run on after the client has abandoned it."""

    request: Request
    kind: str
    faults: Mapping[FaultKind, Fault]
    abandoned: bool = False
    response: Response | None = None
    error: TransportError | None = None
    done: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class Server:
    """Handle the requests to a world. The other arguments are those of `MemoryTransport`."""

    world: World
    schedule: FaultSchedule
    latency: float | Mapping[str, float]
    abandoned: Abandoned
    finish_delay: float
    on_point: OnPoint | None
    _active: int = field(init=False, default=0)
    _idle: anyio.Event = field(init=False, factory=anyio.Event)

    async def wait_settled(self) -> None:
        """Wait until all requests are finished, except those that stall for ever."""
        while self._active:
            await self._idle.wait()
        await checkpoint()

    async def serve(self, exchange: Exchange) -> None:
        """Handle a request, and set its response or error."""
        if not self._active:
            self._idle = anyio.Event()
        self._active += 1
        try:
            exchange.response = await self._handle(exchange)
        except TransportError as error:
            exchange.error = error
        exchange.done.set()
        self._finish()

    def _finish(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()

    async def _handle(self, exchange: Exchange) -> Response:
        await self._receive(exchange)
        self.notify_point("arrived", exchange)
        delay = self.schedule.draw_delay(exchange.faults.get(FaultKind.DELAY))
        await self._wait_gap(exchange, delay)
        self.notify_point("before-effect", exchange)
        await self._wait_gap(exchange)
        if exchange.abandoned:
            if self.abandoned == "dies":
                raise _make_connection_lost()
            await anyio.sleep(self.finish_delay)
        response = await self._apply(exchange)
        self.notify_point("after-effect", exchange)
        await self._wait_gap(exchange)
        return await self._respond(exchange, response)

    async def _receive(self, exchange: Exchange) -> None:
        await self._wait_gap(exchange)
        if FaultKind.REFUSED in exchange.faults:
            raise TransportError(
                FailureKind.CONNECT_FAILED, "all connection attempts failed", sent=False
            )
        if exchange.abandoned:
            raise _make_connection_lost()

    async def _apply(self, exchange: Exchange) -> Response:
        """Carry out the request, or the fault that replaces it."""
        faults = exchange.faults
        if FaultKind.STALL in faults:
            await self._stall()
        if FaultKind.RESET_BEFORE in faults:
            raise _make_connection_lost()
        if busy := faults.get(FaultKind.BUSY):
            return canned.make_busy_response(busy)
        if FaultKind.ERROR_BEFORE in faults:
            return canned.make_error_response()
        if FaultKind.LIE in faults:
            return Response(200)
        lag = faults.get(FaultKind.LAG)
        return self.world.handle(exchange.request, 0.0 if lag is None else lag.seconds)

    async def _respond(self, exchange: Exchange, response: Response) -> Response:
        """Return the response, or inject the fault that replaces it."""
        faults = exchange.faults
        if FaultKind.STALL_AFTER in faults:
            await self._stall()
        if FaultKind.RESET_AFTER in faults:
            raise _make_connection_lost()

        self.notify_point("before-reply", exchange)
        await self._wait_gap(exchange)
        self.notify_point("mid-reply", exchange)
        if FaultKind.HALF_BODY in faults or FaultKind.WRONG_LENGTH in faults:
            raise _make_connection_lost()
        if slow := faults.get(FaultKind.SLOW):
            await anyio.sleep(slow.seconds * (len(response.body) // max(slow.size, 1)))
        await checkpoint()
        for kind, make in _REPLACEMENTS.items():
            if kind in faults:
                return make()
        return response

    async def _stall(self) -> NoReturn:
        self._finish()
        await anyio.sleep_forever()
        raise AssertionError

    async def _wait_gap(self, exchange: Exchange, more: float = 0.0) -> None:
        """Wait for one part of the request's latency, and for *more* seconds."""
        latency = self.latency
        if not isinstance(latency, int | float):
            latency = {**_LATENCIES, **latency}.get(exchange.kind, _LATENCY)
        await anyio.sleep(latency / _GAPS + more)

    def notify_point(self, point: str, exchange: Exchange) -> None:
        """Report that a request passes a point."""
        if self.on_point is not None:
            self.on_point(point, exchange.request)


def _make_connection_lost() -> TransportError:
    return TransportError(FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)


_REPLACEMENTS: Mapping[FaultKind, Callable[[], Response]] = {
    FaultKind.ERROR_AFTER: canned.make_error_response,
    FaultKind.GARBAGE: canned.make_garbage_response,
    FaultKind.HTML: canned.make_html_response,
}
