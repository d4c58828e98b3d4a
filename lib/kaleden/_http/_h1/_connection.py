"""One connection, which belongs to the task that uses it, or is idle.

The socket never blocks: a write is attempted at once, and waited for only if the socket is full.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final, TypeAlias, final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kaleden._http._h1._nested_tls import NestedTlsSocket
from kaleden._http._h1._reader import NOT_NOW, PIECE, Reader, new_poll
from kaleden._http._h1._response_parser import ResponseParser

# More records without data between two exchanges are not normal.
_MAX_TICKETS: Final = 8

Socket: TypeAlias = socket.socket | NestedTlsSocket
"""A connected socket that does not block: plain, with TLS, or with TLS inside TLS."""


@final
class Connection:
    """A connected socket with a reader.

    Args:
        connected: the socket.
        context: the context of the TLS with the server; None for plain http.

    Attributes:
        context: as given.
        reused: whether it has carried an exchange before.
        wrote: whether anything of the current request was sent.
        idle_since: when it was last released, in seconds of a monotonic clock.
    """

    __slots__ = ("_poll", "_reader", "_socket", "context", "idle_since", "reused", "wrote")

    def __init__(self, connected: Socket, context: ssl.SSLContext | None) -> None:
        self._socket = connected
        self._reader = _new_reader(connected)
        # A poll knows nothing of the records that a `NestedTlsSocket` has in memory.
        self._poll = (
            None if isinstance(connected, NestedTlsSocket) else new_poll(connected, readable=True)
        )
        self.context: ssl.SSLContext | None = context
        self.reused: bool = False
        self.wrote: bool = False
        self.idle_since: float = 0.0

    async def write(self, data: bytes) -> None:
        """Send all of *data*.

        Raises:
            OSError: the connection is broken.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                count = self._socket.send(rest)
            except (BlockingIOError, ssl.SSLWantWriteError):
                await anyio.wait_writable(self._socket)
            except ssl.SSLWantReadError:
                self._reader.close()
                await anyio.wait_readable(self._socket)
            else:
                self.wrote = True
                if count == len(rest):
                    return
                rest = memoryview(rest)[count:]

    def write_or_end(self, data: bytes) -> None:
        """Send all of *data* now, or shut the connection down, which ends its next read."""
        with suppress(OSError):
            count = self._socket.send(data)
            self.wrote = True
            if count == len(data):
                return

        # `SSLSocket.shutdown()` drops the TLS layer, and later reads would return unauthenticated
        # bytes; call `socket.shutdown` instead. The socket may be closed by now.
        connected = self._socket
        outer = connected.outer if isinstance(connected, NestedTlsSocket) else connected
        with suppress(OSError):
            socket.socket.shutdown(outer, socket.SHUT_RDWR)

    async def read(self) -> bytes:
        """Wait for bytes.

        Returns:
            The bytes received; empty if the other side has closed.

        Raises:
            OSError: the connection is broken.
        """
        while True:
            try:
                return await self._reader.read()
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)

    def is_stale(self) -> bool:
        """Return whether an idle connection is closed, or has bytes that no request asked for."""
        if self._poll is not None and not self._poll.poll(0):
            return False

        # These reads also remove TLS session tickets, which are no reason to give up a connection.
        for _ in range(_MAX_TICKETS):
            try:
                self._socket.recv(1)
            except NOT_NOW:
                if not isinstance(self._socket, NestedTlsSocket) or self._socket.drained:
                    return False
            except OSError:
                return True
            else:
                return True
        return True

    def detach(self) -> None:
        """Stop watching the socket, and leave it open for another layer."""
        self._reader.close()

    def close(self) -> None:
        """Close the socket at once."""
        self._reader.close()
        self._socket.close()


async def read_more(connection: Connection, response: ResponseParser) -> None:
    """Wait for more bytes of *response*, and feed them to it.

    Raises:
        OSError: the connection is broken.
        TransportError: the bytes are not part of a valid response.
    """
    if response.started:
        # On uvloop a server that always has more to send keeps a read from being cancelled.
        await checkpoint_if_cancelled()
    if received := await connection.read():
        response.feed(received)
    else:
        response.end()


def _new_reader(connected: Socket) -> Reader:
    """Choose the reader for a socket on this backend."""
    asyncio = anyio.get_cancelled_exc_class().__module__.startswith("asyncio")
    if asyncio and not isinstance(connected, NestedTlsSocket):
        from kaleden._http._h1._asyncio_reader import AsyncioReader  # noqa: PLC0415  # not for trio

        try:
            return AsyncioReader(connected)
        except NotImplementedError:
            # Windows' default event loop cannot watch sockets.
            pass
    return _AnyioReader(connected)


@final
class _AnyioReader:
    """Reads from a socket on any backend; see `Reader`."""

    __slots__ = ("_nested", "_socket")

    def __init__(self, connected: Socket) -> None:
        self._socket = connected
        self._nested = connected if isinstance(connected, NestedTlsSocket) else None

    async def read(self) -> bytes:
        while True:
            # A response is never there at once, so a first attempt would be in vain.
            if self._nested is None or self._nested.drained:
                await anyio.wait_readable(self._socket)
            else:
                # Without this a server that always has more to send would block the event loop.
                await checkpoint()
            try:
                return self._socket.recv(PIECE)
            except NOT_NOW:
                continue

    def close(self) -> None:
        """Do nothing: the socket is watched only during a read."""
