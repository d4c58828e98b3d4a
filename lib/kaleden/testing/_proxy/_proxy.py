"""`FaultProxy`: faults on the way to any server, byte by byte."""

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
from kaleden.testing._proxy._link import Link, hang_up

HOST: Final = "127.0.0.1"
_PORTS: Final = {"http": 80, "https": 443}
_NO_FAULTS: Final = FaultPlan()


@final
class FaultProxy(AsyncContextManagerMixin):
    """A TCP proxy on this machine, in front of any server, on which things go wrong as planned.

    ::

        async with LocalPlatform() as platform:
            plan = FaultPlan([Fault("reset-after", on="create", nth=1)])
            async with FaultProxy(platform.url, plan) as proxy:
                async with kaleden.AsyncSession(proxy.url, platform.token) as session:
                    ...

    What is said in the clear and in HTTP/1 has a kind, by its first line; all else, TLS included,
    is of the kind "other". An exchange begins with the first that a client says after the server
    has spoken, so a TLS handshake is one too. The same plan befalls the same exchanges each time,
    if they come in the same order. Leaving the block ends all connections.

    Args:
        target: the URL of the server; the proxy's is the same with another host and port.
        faults: what goes wrong, to begin with. `FaultKind.REFUSED` befalls connections, of which it
            knows no kinds: each is reset at once.

    Raises:
        ValueError: the target has no host and port, or there is a trouble that a proxy knows
            nothing of: `FaultKind.LIE`, `FaultKind.LAG`.
        OSError: on entering: there is no port left.

    Attributes:
        connections: how many were made.
        exchanges: how many there were, by kind.
        done: how many of them each trouble has befallen.
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
        """What goes wrong; may be set, and begins to count anew then, from the next exchange on."""
        return self._fate.plan

    @faults.setter
    def faults(self, faults: FaultPlan) -> None:
        self._fate = FaultSchedule(faults.without(FaultKind.LIE, FaultKind.LAG))
        at_the_door = [fault for fault in faults.faults if fault.trouble is FaultKind.REFUSED]
        if any(fault.on is not None for fault in at_the_door):
            raise ValueError("a connection that is refused is of no kind yet: leave `on` out")
        self._door = FaultSchedule(FaultPlan(at_the_door, faults.seed))

    @property
    def url(self) -> str:
        """The target's URL, by way of this proxy."""
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
            if self._door.draw("other"):
                self.done[FaultKind.REFUSED] += 1
                await hang_up(client, reset=True)
                return
            try:
                server = await anyio.connect_tcp(*self._address)
            except OSError:
                await hang_up(client, reset=True)
                return
            await Link(client, server, lambda: self._fate, self.exchanges, self.done).run()
