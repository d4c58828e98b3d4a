"""One connection through a `FaultProxy`: a stream from the client and a stream to the server."""

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
from kaleden.testing._proxy._faulty_exchange import (
    Action,
    Exchange,
    Pause,
    SendToClient,
    Step,
    classify_chunk,
)

# SO_LINGER with a time-out of 0: closing discards unsent data and sends a reset.
_RESET = struct.pack("ii", 1, 0)


async def close_streams(*streams: SocketStream, reset: bool) -> None:
    """Close connections at once; the other ends see a reset if *reset* is true, else an end."""
    with CancelScope(shield=True):
        for stream in streams:
            if reset:
                # A connection that is closed already has no socket.
                with suppress(OSError, anyio.TypedAttributeLookupError):
                    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no Django
                    raw.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            await anyio.aclose_forcefully(stream)


@define(eq=False)
class Link:
    """A connection between a client and a server, with faults in its exchanges.

    Args:
        client: the connection from the client.
        server: the connection to the server.
        get_schedule: returns the fault schedule. It is called for each exchange.
        exchanges: counts the exchanges, by kind of request.
        done: counts the faults that were injected, by kind.
    """

    client: SocketStream
    server: SocketStream
    get_schedule: Callable[[], FaultSchedule]
    exchanges: Counter[str]
    done: Counter[FaultKind]
    _exchange: Exchange | None = field(init=False, default=None)
    _response_started: bool = field(init=False, default=True)
    _detached: bool = field(init=False, default=False)
    _broken: bool = field(init=False, default=False)
    _scope: CancelScope = field(init=False, factory=CancelScope)

    async def run(self) -> None:
        """Forward data in both directions until the connection ends."""
        try:
            with self._scope:
                async with open_task_group() as group:
                    group.start_soon(self._run_until_broken, self._forward_requests)
                    group.start_soon(self._run_until_broken, self._forward_responses)
        finally:
            await close_streams(self.client, self.server, reset=self._broken)

    async def _run_until_broken(self, forward: Callable[[], Awaitable[None]]) -> None:
        try:
            await forward()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            # `send_eof` raises OSError if the other end is gone.
            self._reset()

    async def _forward_requests(self) -> None:
        async for chunk in self.client:
            if self._response_started:
                self._begin_exchange(chunk)
            if self._exchange is not None and not self._detached:
                await self._run_steps(self._exchange.process_request(chunk), self.server)
        if self._detached:
            # Only once the client has closed: closing earlier could lose the last data sent to it.
            self._scope.cancel()
        await self.server.send_eof()

    def _begin_exchange(self, chunk: bytes) -> None:
        kind, schedule = classify_chunk(chunk), self.get_schedule()
        self.exchanges[kind] += 1
        self._exchange = Exchange(schedule.draw(kind), schedule, self.done)
        self._response_started = False

    async def _forward_responses(self) -> None:
        async for chunk in self.server:
            self._response_started = True
            if not self._detached:
                steps = (
                    [chunk] if self._exchange is None else self._exchange.process_response(chunk)
                )
                await self._run_steps(steps, self.client)
        if not self._detached:
            await self.client.send_eof()

    async def _run_steps(self, steps: Iterable[Step], receiver: SocketStream) -> None:
        for step in steps:
            match step:
                case bytes():
                    await receiver.send(step)
                case Pause(seconds):
                    await anyio.sleep(seconds)
                case SendToClient(data):
                    await self.client.send(data)
                case Action.RESET:
                    self._reset()
                case Action.CLOSE:
                    self._detached = True
                    await self.client.send_eof()
                case Action.DETACH:
                    self._detached = True

    def _reset(self) -> None:
        self._broken = True
        self._scope.cancel()
