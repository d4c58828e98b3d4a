"""`FaultProxy`: a TCP proxy that injects faults into the connections to any server."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Self, final
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import SocketAttribute, SocketStream

from kaleden._engine._tasks import open_task_group
from kaleden.testing._faults import FaultKind, FaultPlan, FaultSchedule
from kaleden.testing._proxy._link import Link, close_streams

HOST: Final = "127.0.0.1"
_PORTS: Final = {"http": 80, "https": 443}
_NO_FAULTS: Final = FaultPlan()


@final
class FaultProxy(AsyncContextManagerMixin):
    """A TCP proxy on this machine that injects faults into the connections to a server.

    ::

        async with LocalPlatform() as platform:
            plan = FaultPlan([Fault("reset-after", on="create", nth=1)])
            async with FaultProxy(platform.url, plan) as proxy:
                async with kaleden.AsyncSession(proxy.url, platform.token) as session:
                    ...

    An exchange is a request and its response. It begins with the first bytes that the client sends
    after a response, so a TLS handshake is an exchange too. For plain HTTP/1, the request line
    gives the kind of the request, one of `REQUEST_KINDS`. All other traffic, including TLS, has the
    kind "other". If the exchanges come in the same order, the same plan selects the same ones.
    Leaving the block closes all connections.

    Args:
        target: the URL of the server. The URL of the proxy differs in host and port only.
        faults: the faults to inject. They can be changed later, see `faults`. `FaultKind.REFUSED`
            applies to connections, which have no kind: each is reset at once.

    Raises:
        ValueError: the target has no host or port, or *faults* has a kind of fault that only a
            `MemoryTransport` can inject: `FaultKind.LIE` or `FaultKind.LAG`.
        OSError: when the block is entered: no port is free.

    Attributes:
        connections: the number of connections so far.
        exchanges: the number of exchanges so far, by kind of request.
        done: the number of faults injected so far, by kind of fault.
    """

    def __init__(self, target: str, faults: FaultPlan = _NO_FAULTS) -> None:
        parts = urlsplit(target)
        port = parts.port or _PORTS.get(parts.scheme)
        if parts.hostname is None or port is None:
            raise ValueError(
                f"a FaultProxy is in front of a URL with host and port, not {target!r}"
            )
        self._target = parts
        self._address = parts.hostname, port
        self._port: int | None = None
        self.connections: int = 0
        self.exchanges: Counter[str] = Counter[str]()
        self.done: Counter[FaultKind] = Counter[FaultKind]()
        self.faults = faults

    @property
    def faults(self) -> FaultPlan:
        """The faults to inject. Setting them restarts the counting, from the next exchange on."""
        return self._schedule.plan

    @faults.setter
    def faults(self, faults: FaultPlan) -> None:
        self._schedule = FaultSchedule(faults.without(FaultKind.LIE, FaultKind.LAG))
        refusals = [fault for fault in faults.faults if fault.trouble is FaultKind.REFUSED]
        if any(fault.on is not None for fault in refusals):
            raise ValueError("a connection that is refused has no kind of request: leave `on` out")
        self._connect_schedule = FaultSchedule(FaultPlan(refusals, faults.seed))

    @property
    def url(self) -> str:
        """The URL of the target through this proxy."""
        if self._port is None:
            raise RuntimeError("a FaultProxy has a URL once it is entered with `async with`")
        return urlunsplit(self._target._replace(netloc=f"{HOST}:{self._port}"))

    def __repr__(self) -> str:
        done = ", ".join(f"{count} {trouble}" for trouble, count in self.done.items())
        return f"<FaultProxy to {self._target.netloc}, {done or 'no faults yet'}>"

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._port is not None:
            raise RuntimeError("a FaultProxy is entered once: make another")
        async with (
            await anyio.create_tcp_listener(local_host=HOST) as listener,
            open_task_group() as group,
        ):
            self._port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django
            group.start_soon(listener.serve, self._connect)
            try:
                yield self
            finally:
                group.cancel_scope.cancel()

    async def _connect(self, client: SocketStream) -> None:
        self.connections += 1
        async with client:
            if self._connect_schedule.draw("other"):
                self.done[FaultKind.REFUSED] += 1
                await close_streams(client, reset=True)
                return
            try:
                server = await anyio.connect_tcp(*self._address)
            except OSError:
                await close_streams(client, reset=True)
                return
            await Link(client, server, lambda: self._schedule, self.exchanges, self.done).run()
