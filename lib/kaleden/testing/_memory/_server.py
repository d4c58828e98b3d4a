"""The server of a platform in memory: each request on its way, with all that can befall it.

The server has tasks of its own, as a real one has: when a client gives a request up, what the
server had begun goes on.
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
from kaleden.testing import _canned_responses as replies
from kaleden.testing._faults import Fault, FaultKind, FaultSchedule
from kaleden.testing._memory._world import World

POINTS: Final = (
    "arrived",
    "before-effect",
    "after-effect",
    "before-reply",
    "mid-reply",
    "closing",
)
"""The points that a request passes. The last is in the client: the reply is whole by then."""

Abandoned: TypeAlias = Literal["finishes", "dies"]
OnPoint: TypeAlias = Callable[[str, Request], None]

# Seconds that the server takes for a request, if nothing else is said.
_LATENCY = 0.06
_LATENCIES: Mapping[str, float] = {"create": 0.6}
# Before the first point, and before each of the others but the last.
_GAPS = 5


@define(eq=False)
class Exchange:
    """One request at the server, which may outlive the client's interest in it."""

    request: Request
    kind: str
    troubles: Mapping[FaultKind, Fault]
    abandoned: bool = False
    reply: Response | None = None
    error: TransportError | None = None
    over: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class Server:
    """Serves a world.

    Args:
        world: the platform.
        fate: decides on delays.
        latency: as of `MemoryTransport`.
        abandoned: as of `MemoryTransport`.
        finish_delay: as of `MemoryTransport`.
        on_point: as of `MemoryTransport`.
    """

    world: World
    fate: FaultSchedule
    latency: float | Mapping[str, float]
    abandoned: Abandoned
    finish_delay: float
    on_point: OnPoint | None
    _busy: int = field(init=False, default=0)
    _calm: anyio.Event = field(init=False, factory=anyio.Event)

    async def settled(self) -> None:
        """Wait until all requests are finished, but those that stall for ever."""
        while self._busy:
            await self._calm.wait()
        await checkpoint()

    async def serve(self, exchange: Exchange) -> None:
        """See a request through."""
        if not self._busy:
            self._calm = anyio.Event()
        self._busy += 1
        try:
            exchange.reply = await self._answer(exchange)
        except TransportError as error:
            exchange.error = error
        exchange.over.set()
        self._finish()

    def _finish(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._calm.set()

    async def _answer(self, exchange: Exchange) -> Response:
        await self._arrive(exchange)
        self.pass_("arrived", exchange)
        await self._gap(exchange, self.fate.delay(exchange.troubles.get(FaultKind.DELAY)))
        self.pass_("before-effect", exchange)
        await self._gap(exchange)
        await self._heed_abandonment(exchange)
        response = await self._act(exchange)
        self.pass_("after-effect", exchange)
        await self._gap(exchange)
        return await self._reply(exchange, response)

    async def _arrive(self, exchange: Exchange) -> None:
        await self._gap(exchange)
        if FaultKind.REFUSED in exchange.troubles:
            raise TransportError(
                FailureKind.CONNECT_FAILED, "all connection attempts failed", sent=False
            )
        if exchange.abandoned:
            raise _lost()

    async def _heed_abandonment(self, exchange: Exchange) -> None:
        if exchange.abandoned:
            if self.abandoned == "dies":
                raise _lost()
            await anyio.sleep(self.finish_delay)

    async def _act(self, exchange: Exchange) -> Response:
        """Do what is asked, or what the plan has in its place."""
        troubles = exchange.troubles
        if FaultKind.STALL in troubles:
            await self._stall()
        if FaultKind.RESET_BEFORE in troubles:
            raise _lost()
        if busy := troubles.get(FaultKind.BUSY):
            return replies.busy(busy)
        if FaultKind.ERROR_BEFORE in troubles:
            return replies.error()
        if FaultKind.LIE in troubles:
            return Response(200)
        lag = troubles.get(FaultKind.LAG)
        return self.world.handle(exchange.request, 0.0 if lag is None else lag.seconds)

    async def _reply(self, exchange: Exchange, response: Response) -> Response:
        """Send the reply, or what the plan makes of it."""
        troubles = exchange.troubles
        if FaultKind.STALL_AFTER in troubles:
            await self._stall()
        if FaultKind.RESET_AFTER in troubles:
            raise _lost()

        self.pass_("before-reply", exchange)
        await self._gap(exchange)
        self.pass_("mid-reply", exchange)
        if FaultKind.HALF_BODY in troubles or FaultKind.WRONG_LENGTH in troubles:
            raise _lost()
        if slow := troubles.get(FaultKind.SLOW):
            await anyio.sleep(slow.seconds * (len(response.body) // max(slow.size, 1)))
        await checkpoint()
        for trouble, make in _MANGLED.items():
            if trouble in troubles:
                return make()
        return response

    async def _stall(self) -> NoReturn:
        self._finish()
        await anyio.sleep_forever()
        raise AssertionError

    async def _gap(self, exchange: Exchange, more: float = 0.0) -> None:
        """Let a part of the request's time pass."""
        await anyio.sleep(self._latency_of(exchange.kind) / _GAPS + more)

    def _latency_of(self, kind: str) -> float:
        if isinstance(self.latency, int | float):
            return self.latency
        return {**_LATENCIES, **self.latency}.get(kind, _LATENCY)

    def pass_(self, point: str, exchange: Exchange) -> None:
        """Tell that a request passes a point."""
        if self.on_point is not None:
            self.on_point(point, exchange.request)


def _lost() -> TransportError:
    return TransportError(FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)


_MANGLED: Mapping[FaultKind, Callable[[], Response]] = {
    FaultKind.ERROR_AFTER: replies.error,
    FaultKind.GARBAGE: replies.garbage,
    FaultKind.HTML: replies.page,
}
