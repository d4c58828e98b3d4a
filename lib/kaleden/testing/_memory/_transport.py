"""`MemoryTransport`: a platform in memory, used as a transport."""

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
from kaleden.testing._memory._world import World, make_large_platform
from kaleden.testing._requests import REQUEST_KINDS, classify_request

PerSession: TypeAlias = float | Callable[[Session], float]

_NO_FAULTS: Final = FaultPlan()
_DEFAULT_LATENCIES: Final[Mapping[str, float]] = MappingProxyType({})


def _check_kinds(latency: float | Mapping[str, float]) -> None:
    if isinstance(latency, int | float):
        return
    unknown = set(latency) - set(REQUEST_KINDS)
    if unknown:
        raise ValueError(f"no kinds of request: {sorted(unknown)}; there are {REQUEST_KINDS}")


def _make_per_session(value: PerSession) -> Callable[[Session], float]:
    return value if callable(value) else lambda _: value


def _never_fail(_: Session) -> bool:
    return False


def _read_no_log(_session: Session, _seconds: float) -> str:
    return ""


@final
class MemoryTransport(AsyncContextManagerMixin):
    """A Skaha platform in memory, used as the transport of a session.

    ::

        async with MemoryTransport() as transport:
            async with kaleden.AsyncSession(transport=transport) as session:
                ...

    It uses no sockets and no processes. Its responses are those of `kaleden.local`. Its sessions
    run in the event loop's time, so that with `run_virtual` a day takes no real time. Leaving the
    block cancels the requests that the server is still handling.

    Args:
        platform: the platform and its sessions. By default, a large platform without sessions.
        faults: the faults to inject. They can be changed later, see `faults`.
        latency: seconds that the server takes for a request: one number for all, or a mapping by
            kind of request. In a mapping, a create takes 0.6 seconds by default, and any other
            kind takes 0.06 seconds.
        start_delay: seconds from the allocation of a session's resources until it runs: a number,
            or a function of the session. It applies to headless sessions only. Others run at once.
        duration: seconds that a session runs: a number, or a function of the session. With
            `math.inf`, a session runs until it is deleted.
        fails: returns whether a session ends as Failed.
        log: returns the log of a session, given the session and the seconds since it began to run.
            It is called for each request for the log. After the end of the session, the seconds are
            those until the end.
        abandoned: what the server does with a request that has arrived when its client abandons
            it. With "finishes", the server carries it out, as CANFAR's servers do. With "dies", the
            server drops it if it has had no effect yet.
        finish_delay: additional seconds until an abandoned request takes effect.
        on_point: called at each of the `POINTS` that a request passes, with the name of the point
            and the request. At the last one, "closing", the whole response has been received, but
            `send` has not returned it yet.

    Raises:
        ValueError: *latency* names an unknown kind of request, or *faults* has a kind of fault that
            only a `FaultProxy` can inject.

    Attributes:
        platform: the platform.
        requests: the number of requests sent so far, by kind of request.
        in_flight: the number of requests that clients are waiting for.
        max_in_flight: the largest number of requests that clients were waiting for at a time.
    """

    def __init__(
        self,
        platform: Platform | None = None,
        *,
        faults: FaultPlan = _NO_FAULTS,
        latency: float | Mapping[str, float] = _DEFAULT_LATENCIES,
        start_delay: PerSession = 1.0,
        duration: PerSession = 10.0,
        fails: Callable[[Session], bool] = _never_fail,
        log: Callable[[Session, float], str] = _read_no_log,
        abandoned: Abandoned = "finishes",
        finish_delay: float = 0.0,
        on_point: OnPoint | None = None,
    ) -> None:
        _check_kinds(latency)
        script = Script(_make_per_session(start_delay), _make_per_session(duration), fails, log)
        self.platform: Platform = make_large_platform() if platform is None else platform
        self.requests: Counter[str] = Counter[str]()
        self.in_flight: int = 0
        self.max_in_flight: int = 0
        self._schedule = FaultSchedule(faults.without(FaultKind.DUPLICATE))
        self._world = World(self.platform, script, faults.lag)
        self._server = Server(
            self._world, self._schedule, latency, abandoned, finish_delay, on_point
        )
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
        """The faults to inject. Setting them restarts the counting of requests."""
        return self._schedule.plan

    @faults.setter
    def faults(self, faults: FaultPlan) -> None:
        self._schedule = self._server.schedule = FaultSchedule(faults.without(FaultKind.DUPLICATE))
        self._world.set_max_lag(faults.lag)

    @property
    def on_point(self) -> OnPoint | None:
        """The function that is called at each point. It may be set."""
        return self._server.on_point

    @on_point.setter
    def on_point(self, on_point: OnPoint | None) -> None:
        self._server.on_point = on_point

    @property
    def created(self) -> Counter[str]:
        """The number of sessions created so far, by their name on the server."""
        return self._world.created

    def sessions(self) -> list[Session]:
        """Return the sessions on the platform now, oldest first, including finished ones."""
        return self._world.sessions()

    async def settled(self) -> None:
        """Wait until the server has finished all requests, except those that stall for ever.

        Cancellation:
            The wait ends. The requests are not affected.
        """
        await self._server.wait_settled()

    def __repr__(self) -> str:
        count = sum(self.platform.count().values())
        return f"<MemoryTransport: {self.in_flight} in flight, {count} sessions>"

    async def send(self, request: Request) -> Response:
        """Send *request*, and return the response.

        Raises:
            TransportError: a fault was injected, and there was no complete response.
            RuntimeError: the transport is not open.

        Cancellation:
            If the request has not arrived at the server yet, it has no effect. Otherwise the
            argument *abandoned* of `MemoryTransport` decides.
        """
        if self._group is None or not self._open:
            raise RuntimeError("use a MemoryTransport inside its `async with` block")

        kind = classify_request(request)
        exchange = Exchange(request, kind, self._schedule.draw(kind))
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
            await exchange.done.wait()
        finally:
            exchange.abandoned = not exchange.done.is_set()
        if exchange.error is not None:
            raise exchange.error

        self._server.notify_point("closing", exchange)
        await checkpoint()
        assert exchange.response is not None  # noqa: S101 - it has a response or an error
        return exchange.response
