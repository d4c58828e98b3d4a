"""One connection through a `FaultProxy`: the client's, and the one to the server."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

import anyio
from anyio import CancelScope
from anyio.abc import SocketAttribute, SocketStream
from attrs import define, field

from kaleden._engine._tasks import open_task_group
from kaleden.testing._faults import FaultKind, FaultSchedule
from kaleden.testing._proxy._faulty_exchange import Act, Exchange, Pause, Say, Step, wire_kind

# On close: throw away what is unsent, and reset.
_RESET = struct.pack("ii", 1, 0)


async def hang_up(*streams: SocketStream, reset: bool) -> None:
    """Close connections at once; let the other ends see a reset, or an end."""
    with CancelScope(shield=True):
        for stream in streams:
            if reset:
                # Of a connection that is closed already, there is none.
                with suppress(OSError, anyio.TypedAttributeLookupError):
                    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no Django
                    raw.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            await anyio.aclose_forcefully(stream)


@define(eq=False)
class Link:
    """A client and a server that talk, and what befalls their exchanges.

    Args:
        client: the connection that the client has made.
        server: the connection that was made for it.
        fate: asked anew for each exchange.
        exchanges: counts them, by kind.
        done: counts what has befallen them.
    """

    client: SocketStream
    server: SocketStream
    fate: Callable[[], FaultSchedule]
    exchanges: Counter[str]
    done: Counter[FaultKind]
    _exchange: Exchange | None = field(init=False, default=None)
    _server_has_spoken: bool = field(init=False, default=True)
    _parted: bool = field(init=False, default=False)
    _broken: bool = field(init=False, default=False)
    _scope: CancelScope = field(init=False, factory=CancelScope)

    async def run(self) -> None:
        """Carry what they say to each other until the connection ends."""
        try:
            with self._scope:
                async with open_task_group() as group:
                    group.start_soon(self._until_broken, self._carry_requests)
                    group.start_soon(self._until_broken, self._carry_replies)
        finally:
            await hang_up(self.client, self.server, reset=self._broken)

    async def _until_broken(self, carry: Callable[[], Awaitable[None]]) -> None:
        try:
            await carry()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            # The last is of an end that was to be told to somebody who is gone.
            self._reset()

    async def _carry_requests(self) -> None:
        async for chunk in self.client:
            if self._server_has_spoken:
                self._begin(chunk)
            if self._exchange is not None and not self._parted:
                await self._take(self._exchange.ask(chunk), self.server)
        if self._parted:
            # Not before the client: it could lose what it was told last.
            self._scope.cancel()
        await self.server.send_eof()

    def _begin(self, chunk: bytes) -> None:
        kind, fate = wire_kind(chunk), self.fate()
        self.exchanges[kind] += 1
        self._exchange = Exchange(fate.draw(kind), fate, self.done)
        self._server_has_spoken = False

    async def _carry_replies(self) -> None:
        async for chunk in self.server:
            self._server_has_spoken = True
            if not self._parted:
                steps = [chunk] if self._exchange is None else self._exchange.answer(chunk)
                await self._take(steps, self.client)
        if not self._parted:
            await self.client.send_eof()

    async def _take(self, steps: Iterable[Step], listener: SocketStream) -> None:
        for step in steps:
            match step:
                case bytes():
                    await listener.send(step)
                case Pause(seconds):
                    await anyio.sleep(seconds)
                case Say(words):
                    await self.client.send(words)
                case Act():
                    await self._act(step)

    async def _act(self, act: Act) -> None:
        if act is Act.RESET:
            self._reset()
            return
        self._parted = True
        if act is Act.CLOSE:
            await self.client.send_eof()

    def _reset(self) -> None:
        self._broken = True
        self._scope.cancel()
