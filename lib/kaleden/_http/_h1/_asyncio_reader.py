"""Reading from a socket under asyncio, which has no cheap way to wait for one once.

To begin and end watching a socket for every reply costs asyncio as much as the rest of an exchange.
Here it is watched for as long as the connection lives. This is the only module that knows asyncio;
everything works without it, as it does on trio and where an event loop cannot watch sockets.
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

    __slots__ = ("_loop", "_poll", "_socket", "_turn", "_watched")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._poll = new_poll(connected, readable=False)
        self._turn: asyncio.Future[bytes] | None = None
        self._watched = False
        self._watch()

    async def read(self) -> bytes:
        """Wait for bytes, and take them."""
        if not self._watched:
            self._watch()
        elif self._poll is not None and self._poll.poll(0):
            # uvloop stops watching a socket that is reset, although bytes came in the same moment.
            return self._socket.recv(PIECE)

        turn: asyncio.Future[bytes] = self._loop.create_future()
        self._turn = turn
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # What came in the same moment is nobody's: asyncio would log an error as forgotten.
                turn.exception()
            raise
        finally:
            self._turn = None

    def close(self) -> None:
        """Watch it no longer."""
        if self._watched:
            self._watched = False
            # A closed one watches nothing any more, and would raise.
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket)

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._on_readable)
        self._watched = True

    def _on_readable(self) -> None:
        turn = self._turn
        if turn is None:
            # Nobody reads, so what has come would be told again in every turn of the loop.
            self.close()
        elif not turn.done():
            # Taken here and not in the task, or the loop would tell of it again before that runs.
            try:
                turn.set_result(self._socket.recv(PIECE))
            except NOT_NOW:
                pass
            except OSError as error:
                turn.set_exception(error)
