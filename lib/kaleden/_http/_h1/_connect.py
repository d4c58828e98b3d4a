"""A connection that is ready for use: dialled, and with its TLS made."""

from __future__ import annotations

import os
import re
import socket
import ssl
from itertools import chain, zip_longest
from typing import Any, Final, TypeAlias, final

import anyio
from attrs import define, field

from kaleden._errors import FailureKind
from kaleden._http._h1._connection import Connection
from kaleden._http._h1._pool import Origin
from kaleden._http._transport import TransportError

STAGGER: Final = 0.25
"""Seconds that an address has for itself before the next one is tried beside it (RFC 8305 §5)."""

Address: TypeAlias = tuple[socket.AddressFamily, Any]


@final
class Dialer:
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


# The names that OpenSSL gives to the alerts of RFC 8446 §6.2 which are about a certificate.
_REFUSALS: Final = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")

# Names of OpenSSL's for what two sides of which one must change have to say to each other: no
# certificate, no common version, or no TLS at all where it was expected.
_LASTING: Final = re.compile(
    "ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION|UNRECOGNIZED_NAME)|WRONG_VERSION_NUMBER"
    "|HTTP_REQUEST|RECORD_LAYER_FAILURE|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE"
)


async def open_connection(
    dialler: Dialer, origin: Origin, context: ssl.SSLContext | None
) -> Connection:
    """Connect to *origin*.

    Args:
        dialler: makes the socket.
        origin: where to.
        context: what to make TLS with; None for a plain connection.

    Raises:
        TransportError: there is no connection, so nothing was sent.

    Cancellation:
        Every socket is closed.
    """
    try:
        connected = await dialler.connect(origin.host, origin.port)
    except (OSError, UnicodeError) as error:
        # UnicodeError is of a host name that cannot be looked up.
        final = isinstance(error, UnicodeError)
        raise connect_failed(origin, f"{error}", final=final) from error

    if context is None:
        return Connection(connected, None)

    try:
        return await _with_tls(connected, origin, context)
    except (OSError, ValueError) as error:
        connected.close()
        raise connect_failed(origin, describe_error(error), final=is_lasting(error)) from error
    except BaseException:
        connected.close()
        raise


async def _with_tls(
    connected: socket.socket, origin: Origin, context: ssl.SSLContext
) -> Connection:
    wrapped = context.wrap_socket(
        connected,
        server_hostname=origin.host,
        do_handshake_on_connect=False,
        # Else a body that ends with the connection could be cut short by anybody on the way.
        suppress_ragged_eofs=False,
    )
    try:
        await _shake_hands(wrapped)
    except BaseException:
        wrapped.close()
        raise
    spoken = wrapped.selected_alpn_protocol()
    if spoken not in {None, "http/1.1"}:
        wrapped.close()
        why = f"the TLS context offers {spoken}, which is not spoken here"
        raise connect_failed(origin, why, final=True)
    return Connection(wrapped, context)


async def _shake_hands(wrapped: ssl.SSLSocket) -> None:
    while True:
        try:
            wrapped.do_handshake()
        except ssl.SSLWantReadError:
            await anyio.wait_readable(wrapped)
        except ssl.SSLWantWriteError:
            await anyio.wait_writable(wrapped)
        else:
            return


def is_certificate_refusal(error: OSError) -> bool:
    """Tell whether the server would not take the client's certificate, or wants one.

    In TLS 1.3 the client hears of that only when it first reads (RFC 8446 §4.4.2.4).
    """
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason is not None and bool(_REFUSALS.search(reason))


def is_lasting(error: BaseException) -> bool:
    """Tell whether TLS would fail in the same way a second time."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    if isinstance(error, ssl.SSLError):
        return is_certificate_refusal(error) or bool(_LASTING.search(error.reason or ""))
    return isinstance(error, ValueError)


def describe_error(error: Exception) -> str:
    """Say what went wrong with TLS."""
    if isinstance(error, OSError) and is_certificate_refusal(error):
        return f"the server refused the client's certificate, or wants one: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return f"TLS was not agreed on: {error}"


def connect_failed(origin: Origin, why: str, *, final: bool = False) -> TransportError:
    """Say that there is no connection, and why, and whether there never will be one."""
    message = f"no connection to {origin.host} port {origin.port}: {why}"
    return TransportError(FailureKind.CONNECT_FAILED, message, sent=False, final=final)
