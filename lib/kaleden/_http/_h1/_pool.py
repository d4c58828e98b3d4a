"""The connections of a client: slots for exchanges, and idle connections for later requests."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, final

import anyio

from kaleden._http._h1._connection import Connection

EXPIRY: Final = 15.0
"""Seconds that a connection is kept idle; servers close it later, Tomcat after 20 seconds."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The scheme, host and port of a server."""

    scheme: str
    host: str
    port: int


@final
class Pool:
    """Connections to any number of origins.

    A connection belongs to the one task that acquired it, or is idle. The idle connection that was
    released last is acquired first, so that connections in excess expire and are closed.

    Args:
        most: connections at most, idle ones included.
        keep: idle connections at most.
        expiry: seconds after which an idle connection is not used again.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        keep: int,
        expiry: float = EXPIRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots: anyio.Semaphore = anyio.Semaphore(most)
        self._most = most
        self._keep = keep
        self._expiry = expiry
        self._clock = clock
        self._closed = False
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self._idle_count = 0

    @property
    def slots_taken(self) -> int:
        """Slots in use."""
        return self._most - self.slots.value

    @property
    def open_count(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._open)

    @property
    def in_use_count(self) -> int:
        """Connections that belong to a task."""
        return len(self._open) - self._idle_count

    def acquire(self, origin: Origin, context: ssl.SSLContext | None) -> Connection | None:
        """Acquire an idle connection, if a usable one exists.

        Args:
            origin: the server.
            context: the context that its TLS must have been made with.
        """
        oldest = self._clock() - self._expiry
        while stack := self._idle.get(origin):
            connection = stack.pop()
            self._idle_count -= 1
            if not stack:
                del self._idle[origin]
            if (
                connection.idle_since >= oldest
                and connection.context is context
                and not connection.is_stale()
            ):
                return connection
            self.discard(connection)

        return None

    async def add(self, dial: Callable[[], Awaitable[Connection]]) -> Connection:
        """Open a connection, for a caller that holds a slot; idle ones are closed to make room."""
        while self._idle_count and self._idle_count > self.slots.value:
            self._discard_oldest()
        connection = await dial()
        self._open.add(connection)
        return connection

    def release(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection idle for its next use."""
        if self._closed or not self._keep:
            self.discard(connection)
            return

        if self._idle_count >= self._keep:
            self._discard_oldest()
        connection.reused = True
        connection.wrote = False
        connection.idle_since = self._clock()
        self._idle_count += 1
        self._idle.setdefault(origin, []).append(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection."""
        self._open.discard(connection)
        connection.close()

    def _discard_oldest(self) -> None:
        origin = min(self._idle, key=lambda each: self._idle[each][0].idle_since)
        stack = self._idle[origin]
        self.discard(stack.pop(0))
        self._idle_count -= 1
        if not stack:
            del self._idle[origin]

    def close(self) -> None:
        """Close all idle connections now, and those in use when they are released."""
        self._closed = True
        for stack in self._idle.values():
            for connection in stack:
                self.discard(connection)
        self._idle.clear()
        self._idle_count = 0
