"""Reading from a socket under asyncio, which has no cheap way to wait for one once.

To add and remove a watcher for every response costs asyncio as much as the rest of an exchange, so
the socket is watched for as long as the connection lives. This is the only module that imports
asyncio; everything works without it, as on trio and where an event loop cannot watch sockets.
"""

from __future__ import annotations

import asyncio
import socket
from typing import final

from kaleden._http._h1._reader import NOT_NOW, PIECE, new_poll


@final
class AsyncioReader:
    """Reads from a socket that the event loop watches all the time; see `Reader`.

    Args:
        connected: the socket, which does not block.

    Raises:
        NotImplementedError: this event loop cannot watch sockets.
    """

    __slots__ = ("_loop", "_poll", "_received", "_socket", "_watched")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._poll = new_poll(connected, readable=False)
        self._received: asyncio.Future[bytes] | None = None
        self._watched = False
        self._watch()

    async def read(self) -> bytes:
        """Wait for bytes and return them."""
        if not self._watched:
            self._watch()
        elif self._poll is not None and self._poll.poll(0):
            # uvloop stops watching a socket that is reset, even if bytes came at the same time.
            return self._socket.recv(PIECE)

        received: asyncio.Future[bytes] = self._loop.create_future()
        self._received = received
        try:
            return await received
        except asyncio.CancelledError:
            if received.done() and not received.cancelled():
                # Retrieve an error that came at the same time, or asyncio would log it.
                received.exception()
            raise
        finally:
            self._received = None

    def close(self) -> None:
        """Stop watching the socket."""
        if self._watched:
            self._watched = False
            # A closed event loop watches nothing, and would raise.
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket)

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._on_readable)
        self._watched = True

    def _on_readable(self) -> None:
        received = self._received
        if received is None:
            # No task is reading, so the event loop would call this in every iteration.
            self.close()
        elif not received.done():
            # Read here and not in the task, or the event loop would call this again before it runs.
            try:
                received.set_result(self._socket.recv(PIECE))
            except NOT_NOW:
                pass
            except OSError as error:
                received.set_exception(error)
