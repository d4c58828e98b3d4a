"""One connection: bytes out, bytes in, closed at once.

It belongs to the one task that uses it, or waits among the idle ones. The socket never blocks: it
is tried first, and only waited for if it has nothing to give.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, final

import anyio

_PIECE: Final = 64 * 2**10
"""Bytes read at a time; more than a TLS record holds, so that none stays behind in OpenSSL."""

_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError)


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

    __slots__ = ("_socket", "context", "idle_since", "reused", "wrote")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        self._socket = connected
        self.context = context
        self.reused = False
        self.wrote = False
        self.idle_since = 0.0

    async def write(self, data: bytes) -> None:
        """Send all of *data*.

        Raises:
            OSError: the connection is broken.
        """
        self.wrote = False
        rest: bytes | memoryview = data
        while True:
            try:
                count = self._socket.send(rest)
            except (BlockingIOError, ssl.SSLWantWriteError):
                await anyio.wait_writable(self._socket)
            except ssl.SSLWantReadError:
                await anyio.wait_readable(self._socket)
            else:
                self.wrote = True
                if count == len(rest):
                    return
                rest = memoryview(rest)[count:]

    async def read(self) -> bytes:
        """Wait for bytes.

        Returns:
            What has come; nothing if the other side has closed.

        Raises:
            OSError: the connection is broken.
        """
        while True:
            await anyio.wait_readable(self._socket)
            try:
                return self._socket.recv(_PIECE)
            except _NOT_NOW:
                continue
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)

    def is_stale(self) -> bool:
        """Tell whether an idle connection is of no use: closed, or with bytes nobody asked for."""
        try:
            self._socket.recv(1)
        except _NOT_NOW:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close it at once."""
        self._socket.close()
