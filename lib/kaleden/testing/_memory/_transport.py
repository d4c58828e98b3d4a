"""`MemoryTransport`: a whole platform in memory, as a transport."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, Self, TypeAlias, final

from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kaleden._engine._tasks import open_task_group
from kaleden._wire import Request, Response
from kaleden.local import Platform, Session
from kaleden.testing._faults import FaultKind, FaultPlan, FaultSchedule
from kaleden.testing._memory._server import Abandoned, Exchange, OnPoint, Server
from kaleden.testing._memory._sessions import Script
from kaleden.testing._memory._world import World, large_platform
from kaleden.testing._requests import REQUEST_KINDS, request_kind

Value: TypeAlias = float | Callable[[Session], float]

_NO_FAULTS: Final = FaultPlan()
_AS_USUAL: Final[Mapping[str, float]] = MappingProxyType({})


def _check_kinds(latency: float | Mapping[str, float]) -> None:
    if isinstance(latency, int | float):
        return
    unknown = set(latency) - set(REQUEST_KINDS)
    if unknown:
        raise ValueError(f"no kinds of request: {sorted(unknown)}; there are {REQUEST_KINDS}")


def _per_session(value: Value) -> Callable[[Session], float]:
    return value if callable(value) else lambda _: value


def _never(_: Session) -> bool:
    return False


def _no_log(_session: Session, _seconds: float) -> str:
    return ""


@final
class MemoryTransport(AsyncContextManagerMixin):
    """A Skaha platform in memory, as a transport: no sockets, no processes, no real time.

    ::

        async with MemoryTransport() as transport:
            async with kaleden.AsyncSession(transport=transport) as session:
                ...

    It answers as `kaleden.local` does, and its sessions run in the event loop's time, so with
    `run_virtual` a day of them takes no time. Leaving the block ends what the server is doing.

    Args:
        platform: the sessions; by default a large platform without any.
        faults: what goes wrong, to begin with.
        latency: seconds that the server takes for a request: for all, or by kind of request; of
            those that are not named, a create takes 0.6, anything else 0.06.
        start_delay: seconds from when a session has room to when it runs: for all, or a function of
            the session. Headless sessions only; others run at once.
        duration: seconds that a session runs, in the same way; `math.inf` until it is deleted.
        fails: tells of a session whether it ends as Failed.
        log: gives what a session has written in so many seconds of running; called again for each
            request, with the seconds until its end once it has ended.
        abandoned: what becomes of a request that has arrived, when its client gives it up. It
            "finishes" all the same, as on CANFAR's servers; or it "dies" if nothing was done yet.
        finish_delay: seconds that an abandoned request takes more, until its effect.
        on_point: called at each of the points that a request passes: "arrived", "before-effect",
            "after-effect", "before-reply", "mid-reply", and "closing", when the reply is whole and
            the client has not got it yet.

    Raises:
        ValueError: ``latency`` names a kind of request that there is not, or ``faults`` has a
            trouble that needs a wire.

    Attributes:
        platform: as given, or the default one.
        requests: how many were sent, by kind of request.
        in_flight: requests that clients are waiting for.
        max_in_flight: the most that they were waiting for at a time.
    """

    def __init__(
        self,
        platform: Platform | None = None,
        *,
        faults: FaultPlan = _NO_FAULTS,
        latency: float | Mapping[str, float] = _AS_USUAL,
        start_delay: Value = 1.0,
        duration: Value = 10.0,
        fails: Callable[[Session], bool] = _never,
        log: Callable[[Session, float], str] = _no_log,
        abandoned: Abandoned = "finishes",
        finish_delay: float = 0.0,
        on_point: OnPoint | None = None,
    ) -> None:
        _check_kinds(latency)
        script = Script(_per_session(start_delay), _per_session(duration), fails, log)
        self.platform: Platform = large_platform() if platform is None else platform
        self.requests: Counter[str] = Counter[str]()
        self.in_flight: int = 0
        self.max_in_flight: int = 0
        self._fate = FaultSchedule(faults.without(FaultKind.DUPLICATE))
        self._world = World(self.platform, script, faults.lag)
        self._server = Server(self._world, self._fate, latency, abandoned, finish_delay, on_point)
        self._group: TaskGroup | None = None
        self._open = False

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._group is not None:
            raise RuntimeError("a MemoryTransport is entered once: make another")

        async with open_task_group() as self._group:
            self._world.open()
            self._open = True
            try:
                yield self
            finally:
                self._open = False
                self._world.close()
                self._group.cancel_scope.cancel()

    @property
    def faults(self) -> FaultPlan:
        """What goes wrong; may be set, and begins to count requests anew then."""
        return self._fate.plan

    @faults.setter
    def faults(self, faults: FaultPlan) -> None:
        self._fate = self._server.fate = FaultSchedule(faults.without(FaultKind.DUPLICATE))
        self._world.look_back(faults.lag)

    @property
    def on_point(self) -> OnPoint | None:
        """What is called at each point; may be set."""
        return self._server.on_point

    @on_point.setter
    def on_point(self, on_point: OnPoint | None) -> None:
        self._server.on_point = on_point

    @property
    def created(self) -> Counter[str]:
        """How many sessions were ever created, by name, as the server writes it."""
        return self._world.created

    def sessions(self) -> list[Session]:
        """List the sessions that are there now, oldest first, finished ones included."""
        return self._world.sessions()

    async def settled(self) -> None:
        """Wait until the server has finished all requests, but those that stall for ever.

        Cancellation:
            Nothing is changed.
        """
        await self._server.settled()

    def __repr__(self) -> str:
        count = sum(self.platform.count().values())
        return f"<MemoryTransport: {self.in_flight} in flight, {count} sessions>"

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply.

        Raises:
            TransportError: there was no reply, or not a whole one, as the fault plan says.
            RuntimeError: the transport is not open.

        Cancellation:
            If it has not arrived at the server yet, it never will; else it goes as ``abandoned``
            says.
        """
        if self._group is None or not self._open:
            raise RuntimeError("use a MemoryTransport inside its `async with` block")

        kind = request_kind(request)
        exchange = Exchange(request, kind, self._fate.draw(kind))
        self.requests[kind] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            self._group.start_soon(self._server.serve, exchange)
            return await self._receive(exchange)
        finally:
            self.in_flight -= 1

    async def _receive(self, exchange: Exchange) -> Response:
        try:
            await exchange.over.wait()
        finally:
            exchange.abandoned = not exchange.over.is_set()
        if exchange.error is not None:
            raise exchange.error

        self._server.pass_("closing", exchange)
        await checkpoint()
        assert exchange.reply is not None  # noqa: S101 - what is over has a reply or an error
        return exchange.reply
