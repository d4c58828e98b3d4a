"""One connection: bytes out, bytes in, closed at once.

It belongs to the one task that uses it, or waits among the idle ones. The socket never blocks: what
is to be written is tried at once, and waited for only where the socket is full.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from sniffio import current_async_library

from kaleden._http._h1._reader import NOT_NOW, AnyioReader, Reader, new_poll
from kaleden._http._h1._response_parser import ResponseParser


@final
class Connection:
    """A connected socket, plain or with TLS.

    Args:
        connected: the socket, which does not block.
        context: what its TLS was made with; None for a plain one.

    Attributes:
        context: as given.
        reused: whether it has carried an exchange before.
        wrote: whether anything of the present request has left.
        idle_since: when it was last given back, in seconds of a monotonic clock.
    """

    __slots__ = ("_poll", "_reader", "_socket", "context", "idle_since", "reused", "wrote")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        self._socket = connected
        self._reader = _new_reader(connected)
        self._poll = new_poll(connected, readable=True)
        self.context = context
        self.reused = False
        self.wrote = False
        self.idle_since = 0.0

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
        """Send all of *data* now, or let the connection end for whoever reads from it."""
        with suppress(OSError):
            count = self._socket.send(data)
            self.wrote = True
            if count == len(data):
                return

        # It may be closed by now. The method of a socket with TLS would take that off, and what has
        # come already would be read as it came, as nobody's word.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    async def read(self) -> bytes:
        """Wait for bytes.

        Returns:
            What has come; nothing if the other side has closed.

        Raises:
            OSError: the connection is broken.
        """
        while True:
            try:
                return await self._reader.read()
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)

    def is_stale(self) -> bool:
        """Tell whether an idle connection is of no use: closed, or with bytes nobody asked for."""
        if self._poll is not None and not self._poll.poll(0):
            return False

        # A session ticket of TLS is nothing to worry about, and is taken out of the way here.
        try:
            self._socket.recv(1)
        except NOT_NOW:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close it at once."""
        self._reader.close()
        self._socket.close()


async def read_more(connection: Connection, reply: ResponseParser) -> None:
    """Wait for more of *reply*, and take it.

    Raises:
        OSError: the connection is broken.
        TransportError: what came is no part of a reply that can be read.
    """
    if reply.started:
        # On uvloop a server that always has more to say keeps a read from being cancelled.
        await checkpoint_if_cancelled()
    if received := await connection.read():
        reply.feed(received)
    else:
        reply.end()


def _new_reader(connected: socket.socket) -> Reader:
    """Choose how to read from a socket here."""
    if current_async_library() == "asyncio":
        from kaleden._http._h1._asyncio_reader import AsyncioReader  # noqa: PLC0415  # trio has no use for it

        try:
            return AsyncioReader(connected)
        except NotImplementedError:
            # The event loop that Windows has by default.
            pass
    return AnyioReader(connected)
