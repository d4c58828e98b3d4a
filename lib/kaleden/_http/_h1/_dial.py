"""A socket to a host, by whichever of its addresses answers first (RFC 8305)."""

from __future__ import annotations

import os
import socket
from itertools import chain, zip_longest
from typing import Any, Final, TypeAlias, final

import anyio
from attrs import define, field

STAGGER: Final = 0.25
"""Seconds that an address has for itself before the next one is tried beside it (RFC 8305 §5)."""

Address: TypeAlias = tuple[socket.AddressFamily, Any]


@final
class Dialler:
    """Connects to hosts. Those who dial one host at the same time share one look-up of its name."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], _Name] = {}

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to *host*, its addresses tried one after the other, each with a head start.

        Returns:
            A connected, non-blocking socket.

        Raises:
            OSError: no address answered, or there is none.

        Cancellation:
            Every socket is closed.
        """
        race = _Race(_interleaved(await self._addresses(host, port)))
        try:
            await race.run()
            return race.won()
        except BaseException:
            race.close()
            raise

    async def _addresses(self, host: str, port: int) -> list[Address]:
        name = self._names.setdefault((host, port), _Name())
        async with name.lock:
            if name.error is not None:
                raise OSError(*name.error.args)

            if not name.addresses:
                try:
                    name.addresses = await _look_up(host, port)
                except OSError as error:
                    name.error = error
                    raise
                finally:
                    # Whoever comes later asks anew; whoever waits has this one.
                    self._names.pop((host, port), None)
            return name.addresses


@define(eq=False)
class _Name:
    """A name that is being looked up."""

    lock: anyio.Lock = field(factory=anyio.Lock)
    addresses: list[Address] = field(factory=list[Address])
    error: OSError | None = None


async def _look_up(host: str, port: int) -> list[Address]:
    try:
        # An address needs no look-up, which would take a thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
    return [(family, address) for family, _, _, _, address in found]


def _interleaved(addresses: list[Address]) -> list[Address]:
    """Let families take turns, the one that the system prefers first (RFC 8305 §4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [each for each in chain(*zip_longest(first, others)) if each is not None]


@define(eq=False)
class _Race:
    """Attempts to connect, of which one is enough."""

    addresses: list[Address]
    _winner: socket.socket | None = field(init=False, default=None)
    _errors: list[OSError] = field(init=False, factory=list[OSError])

    async def run(self) -> None:
        if len(self.addresses) == 1:
            await self._attempt(self.addresses[0])
            return

        async with anyio.create_task_group() as group:
            for address in self.addresses:
                over = anyio.Event()
                group.start_soon(self._compete, address, over, group.cancel_scope)
                with anyio.move_on_after(STAGGER):
                    await over.wait()

    def won(self) -> socket.socket:
        if self._winner is None:
            raise self._errors[0]
        return self._winner

    def close(self) -> None:
        if self._winner is not None:
            self._winner.close()

    async def _compete(
        self, address: Address, over: anyio.Event, others: anyio.CancelScope
    ) -> None:
        await self._attempt(address)
        over.set()
        if self._winner is not None:
            others.cancel()

    async def _attempt(self, address: Address) -> None:
        attempt: socket.socket | None = None
        try:
            attempt = await _connect(address)
        except OSError as error:
            self._errors.append(error)
            return

        if self._winner is None:
            self._winner = attempt
        else:
            attempt.close()


async def _connect(address: Address) -> socket.socket:
    family, place = address
    attempt = socket.socket(family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        # A request is one write, and waits for nothing more to go with it.
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            attempt.connect(place)
        except BlockingIOError:
            await anyio.wait_writable(attempt)
            error = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        attempt.close()
        raise
    return attempt
