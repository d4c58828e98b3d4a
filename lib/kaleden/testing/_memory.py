"""A whole platform in memory: a transport that answers requests itself.

The server in it has tasks of its own, as a real one has: when a client gives a request up, what the
server had begun goes on.
"""

from __future__ import annotations

import copy
import random
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, NoReturn, Self, TypeAlias, final
from urllib.parse import parse_qsl

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from kaleden._errors import FailureKind
from kaleden._http import TransportError
from kaleden._tasks import open_task_group
from kaleden._wire import Request, Response
from kaleden.local import Platform, Session, Settings
from kaleden.local._manifest import Parameters
from kaleden.local._service import Call, Reply, Service
from kaleden.testing._faults import Fate, Fault, FaultPlan, Trouble
from kaleden.testing._machine import Machine, Script
from kaleden.testing._requests import request_kind

GIB = 2**30

EPOCH: Final = 1_790_000_000.0
"""Seconds since the Unix epoch at which the event loop's clock shows 0."""

USER: Final = "local"

POINTS: Final = (
    "arrived",
    "before-effect",
    "after-effect",
    "before-reply",
    "mid-reply",
    "closing",
)
"""The points that a request passes. The last is in the client: the reply is whole by then."""

# Seconds that the server takes for a request, if nothing else is said.
_LATENCY = 0.06
_LATENCIES: Mapping[str, float] = {"create": 0.6}
# Before the first point, and before each of the others but the last.
_GAPS = 5

Value: TypeAlias = float | Callable[[Session], float]


def _large_platform() -> Platform:
    """Make a platform on which nobody waits for room; its ids are the same each time."""
    settings = Settings(millicores=10**9, ram=10**9 * GIB)
    return Platform(settings, random.Random(0))  # noqa: S311 - nothing is secret here


def _per_session(value: Value) -> Callable[[Session], float]:
    return value if callable(value) else lambda _: value


def _never(_: Session) -> bool:
    return False


def _no_log(_session: Session, _seconds: float) -> str:
    return ""


@define(eq=False)
class _Exchange:
    """One request at the server, which may outlive the client's interest in it."""

    request: Request
    kind: str
    troubles: Mapping[Trouble, Fault]
    abandoned: bool = False
    reply: Response | None = None
    error: TransportError | None = None
    over: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class _Past:
    """What a platform was like, as far back as somebody may look."""

    reach: float
    _states: deque[tuple[float, Platform]] = field(
        init=False, factory=deque[tuple[float, Platform]]
    )

    def remember(self, platform: Platform, now: float) -> None:
        if not self.reach:
            return
        self._states.append((now, copy.deepcopy(platform)))
        while len(self._states) > 1 and self._states[1][0] <= now - self.reach:
            self._states.popleft()

    def recall(self, moment: float) -> Platform:
        """Give the platform as it was then."""
        known = [platform for time, platform in self._states if time <= moment]
        return known[-1] if known else self._states[0][1]


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
        faults: what goes wrong.
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

    Attributes:
        platform: the sessions.
        on_point: as given; may be set.
        requests: how many were sent, by kind of request.
        created: how many sessions were ever created, by name.
        in_flight: requests that clients are waiting for.
        max_in_flight: the most that they were waiting for at a time.
    """

    def __init__(
        self,
        platform: Platform | None = None,
        *,
        faults: FaultPlan | None = None,
        latency: float | Mapping[str, float] | None = None,
        start_delay: Value = 1.0,
        duration: Value = 10.0,
        fails: Callable[[Session], bool] = _never,
        log: Callable[[Session, float], str] = _no_log,
        abandoned: Literal["finishes", "dies"] = "finishes",
        finish_delay: float = 0.0,
        on_point: Callable[[str, Request], None] | None = None,
    ) -> None:
        plan = FaultPlan() if faults is None else faults
        script = Script(_per_session(start_delay), _per_session(duration), fails, log)
        self.platform = _large_platform() if platform is None else platform
        self.on_point = on_point
        self.requests = Counter[str]()
        self.created = Counter[str]()
        self.in_flight = 0
        self.max_in_flight = 0
        self._fate = Fate(plan)
        self._past = _Past(plan.lag)
        self._machine = Machine(self.platform, script, self._remember)
        self._latency = latency
        self._abandoned = abandoned
        self._finish_delay = finish_delay
        self._group: TaskGroup | None = None
        self._closed: float | None = None
        self._busy = 0
        self._calm = anyio.Event()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._group is not None:
            raise RuntimeError("a MemoryTransport is entered once: make another")
        async with open_task_group() as self._group:
            self._remember(self._now())
            yield self
            self._closed = self._now()
            self._group.cancel_scope.cancel()

    def sessions(self) -> list[Session]:
        """List the sessions that are there now, oldest first, finished ones included."""
        self._machine.advance(self._now())
        return list(self.platform.of_user(USER))

    async def settled(self) -> None:
        """Wait until the server has finished all requests, but those that stall for ever.

        Cancellation:
            Nothing is changed.
        """
        while self._busy:
            await self._calm.wait()
        await checkpoint()

    def __repr__(self) -> str:
        count = len(list(self.platform.of_user(USER)))
        return f"<MemoryTransport: {self.in_flight} in flight, {count} sessions>"

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply; see `kaleden.AsyncSession`'s ``transport``.

        Raises:
            TransportError: a fault of the plan let there be no reply, or not a whole one.

        Cancellation:
            What has arrived at the server becomes of it what `abandoned` says.
        """
        if self._group is None or self._closed is not None:
            raise RuntimeError("use a MemoryTransport inside its `async with` block")

        kind = request_kind(request)
        exchange = _Exchange(request, kind, self._fate.befall(kind))
        self.requests[kind] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            self._group.start_soon(self._serve, exchange)
            return await self._receive(exchange)
        finally:
            self.in_flight -= 1

    # The client's side

    async def _receive(self, exchange: _Exchange) -> Response:
        try:
            await exchange.over.wait()
        finally:
            exchange.abandoned = not exchange.over.is_set()
        if exchange.error is not None:
            raise exchange.error

        self._pass("closing", exchange)
        await checkpoint()
        assert exchange.reply is not None  # noqa: S101 - what is over has a reply or an error
        return exchange.reply

    # The server's side

    async def _serve(self, exchange: _Exchange) -> None:
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

    async def _answer(self, exchange: _Exchange) -> Response:
        await self._arrive(exchange)
        self._pass("arrived", exchange)
        await self._gap(exchange, self._fate.delay(exchange.troubles.get(Trouble.DELAY)))
        self._pass("before-effect", exchange)
        await self._gap(exchange)
        await self._heed_abandonment(exchange)
        response = await self._act(exchange)
        self._pass("after-effect", exchange)
        await self._gap(exchange)
        return await self._reply(exchange, response)

    async def _arrive(self, exchange: _Exchange) -> None:
        await self._gap(exchange)
        if Trouble.REFUSED in exchange.troubles:
            raise TransportError(
                FailureKind.CONNECT_FAILED, "all connection attempts failed", sent=False
            )
        if exchange.abandoned:
            raise _lost()

    async def _heed_abandonment(self, exchange: _Exchange) -> None:
        if exchange.abandoned:
            if self._abandoned == "dies":
                raise _lost()
            await anyio.sleep(self._finish_delay)

    async def _act(self, exchange: _Exchange) -> Response:
        """Do what is asked, or what the plan has in its place."""
        troubles = exchange.troubles
        if Trouble.STALL in troubles:
            await self._stall()
        if Trouble.RESET_BEFORE in troubles:
            raise _lost()
        if busy := troubles.get(Trouble.BUSY):
            return _busy(busy)
        if Trouble.ERROR_BEFORE in troubles:
            return _error()
        if Trouble.LIE in troubles:
            return Response(200)
        return self._handle(exchange)

    async def _reply(self, exchange: _Exchange, response: Response) -> Response:
        """Send the reply, or what the plan makes of it."""
        troubles = exchange.troubles
        if Trouble.STALL_AFTER in troubles:
            await self._stall()
        if Trouble.RESET_AFTER in troubles:
            raise _lost()

        self._pass("before-reply", exchange)
        await self._gap(exchange)
        self._pass("mid-reply", exchange)
        if Trouble.HALF_BODY in troubles:
            raise _lost()
        await checkpoint()
        for trouble, make in _MANGLED.items():
            if trouble in troubles:
                return make()
        return response

    async def _stall(self) -> NoReturn:
        self._finish()
        await anyio.sleep_forever()
        raise AssertionError

    async def _gap(self, exchange: _Exchange, more: float = 0.0) -> None:
        """Let a part of the request's time pass."""
        await anyio.sleep(self._latency_of(exchange.kind) / _GAPS + more)

    def _latency_of(self, kind: str) -> float:
        if isinstance(self._latency, int | float):
            return self._latency
        return {**_LATENCIES, **(self._latency or {})}.get(kind, _LATENCY)

    def _pass(self, point: str, exchange: _Exchange) -> None:
        if self.on_point is not None:
            self.on_point(point, exchange.request)

    # The platform

    def _now(self) -> float:
        return EPOCH + anyio.current_time() if self._closed is None else self._closed

    def _remember(self, now: float) -> None:
        self._past.remember(self.platform, now)

    def _handle(self, exchange: _Exchange) -> Response:
        now = self._now()
        self._machine.advance(now)
        request = exchange.request
        reply = self._service(exchange, now).handle(_call(request, now))
        self._machine.settle(now)
        if exchange.kind == "create" and reply.status == 200:
            self._count(reply)
        if request.method != "GET":
            self._remember(now)
        return self._response(reply, now)

    def _service(self, exchange: _Exchange, now: float) -> Service:
        lag = exchange.troubles.get(Trouble.LAG)
        platform = self.platform
        if lag is not None and exchange.request.method == "GET":
            platform = self._past.recall(now - lag.seconds)
        return Service(platform, "https://memory.invalid", Path)

    def _count(self, reply: Reply) -> None:
        session = self.platform.find(USER, reply.body.decode().strip())
        assert session is not None  # noqa: S101 - it was created just now
        self.created[session.spec.name] += 1

    def _response(self, reply: Reply, now: float) -> Response:
        headers = dict(reply.headers)
        if reply.content_type is not None:
            headers["content-type"] = reply.content_type
        # The file is none: its name is the session's.
        log = "" if reply.file is None else self._machine.log(reply.file.name, now)
        return Response(reply.status, headers, reply.body + log.encode())


def _call(request: Request, now: float) -> Call:
    """Undress a request as the server's HTTP half does."""
    path, _, query = request.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    pairs += parse_qsl(request.form.decode(), keep_blank_values=True)
    return Call(
        method=request.method,
        path=f"/v1/{path}" if request.versioned else f"/{path}",
        parameters=Parameters.of(pairs),
        user=USER,
        now=now,
        registry_secret=dict(request.headers).get("x-skaha-registry-auth"),
    )


def _lost() -> TransportError:
    return TransportError(FailureKind.CONNECTION_LOST, "the connection was reset", sent=True)


def _text(status: int, text: str, **headers: str) -> Response:
    return Response(status, {"content-type": "text/plain", **headers}, text.encode())


def _busy(fault: Fault) -> Response:
    headers = {"retry-after": f"{fault.seconds:g}"}
    return _text(fault.status, "temporarily unavailable\n", **headers)


def _error() -> Response:
    return _text(500, "unexpected exception: java.lang.IllegalStateException: a fault of the plan")


def _garbage() -> Response:
    return Response(200, {"content-type": "application/octet-stream"}, b"\x00\xff{[\x80 \xfe")


def _page() -> Response:
    page = b"<!doctype html><title>Sign in</title><h1>Sign in</h1>"
    return Response(200, {"content-type": "text/html"}, page)


_MANGLED: Mapping[Trouble, Callable[[], Response]] = {
    Trouble.ERROR_AFTER: _error,
    Trouble.GARBAGE: _garbage,
    Trouble.HTML: _page,
}
