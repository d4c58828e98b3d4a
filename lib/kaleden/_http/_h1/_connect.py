"""Open connections: addresses, TLS, and the tunnel of a proxy."""

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
from kaleden._http._h1._connection import Connection, Socket, read_more
from kaleden._http._h1._nested_tls import NestedTlsSocket
from kaleden._http._h1._pool import Origin
from kaleden._http._h1._proxy import Proxy
from kaleden._http._h1._response_parser import ResponseParser
from kaleden._http._transport import TransportError

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the previous one (RFC 8305 §5)."""

Address: TypeAlias = tuple[socket.AddressFamily, Any]


@final
class Dialer:
    """Connects to hosts; concurrent calls for one host share one look-up of its name."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], _Lookup] = {}

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to *host*; its addresses are tried in turn, each with a head start.

        Returns:
            A connected, non-blocking socket.

        Raises:
            OSError: the name has no address, or none accepts a connection.

        Cancellation:
            Every socket is closed.
        """
        return await _Race(_interleave(await self._find_addresses(host, port))).run()

    async def _find_addresses(self, host: str, port: int) -> list[Address]:
        lookup = self._lookups.setdefault((host, port), _Lookup())
        async with lookup.lock:
            if lookup.error is not None:
                raise OSError(*lookup.error.args)

            if not lookup.addresses:
                try:
                    lookup.addresses = await _look_up(host, port)
                except OSError as error:
                    lookup.error = error
                    raise
                finally:
                    # Waiting callers share this look-up; later ones start another.
                    self._lookups.pop((host, port), None)
            return lookup.addresses


@define(eq=False)
class _Lookup:
    """The look-up of a name, and its result."""

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


def _interleave(addresses: list[Address]) -> list[Address]:
    """Alternate address families, beginning with the one that the system prefers (RFC 8305 §4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [each for each in chain(*zip_longest(first, others)) if each is not None]


@define(eq=False)
class _Race:
    """Attempts to connect, of which one is enough."""

    addresses: list[Address]
    _winner: socket.socket | None = field(init=False, default=None)
    _errors: list[OSError] = field(init=False, factory=list[OSError])

    async def run(self) -> socket.socket:
        try:
            if len(self.addresses) == 1:
                await self._attempt(self.addresses[0])
            else:
                await self._attempt_all()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise

        if self._winner is None:
            raise self._errors[0]
        return self._winner

    async def _attempt_all(self) -> None:
        async with anyio.create_task_group() as group:
            for address in self.addresses:
                finished = anyio.Event()
                group.start_soon(self._compete, address, finished, group.cancel_scope)
                with anyio.move_on_after(STAGGER):
                    await finished.wait()

    async def _compete(
        self, address: Address, finished: anyio.Event, others: anyio.CancelScope
    ) -> None:
        await self._attempt(address)
        finished.set()
        if self._winner is not None:
            others.cancel()

    async def _attempt(self, address: Address) -> None:
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
    family, destination = address
    attempt = socket.socket(family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        # A request is one write, which must not wait for more bytes.
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            attempt.connect(destination)
        except BlockingIOError:
            await anyio.wait_writable(attempt)
            error = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        attempt.close()
        raise
    return attempt


# OpenSSL's names for the alerts about a certificate (RFC 8446 §6.2).
_REFUSALS: Final = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")

# OpenSSL's names for errors that stay until one side is changed: no certificate, no common version,
# or no TLS at all where it was expected.
_LASTING: Final = re.compile(
    "ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION|UNRECOGNIZED_NAME)|WRONG_VERSION_NUMBER"
    "|HTTP_REQUEST|RECORD_LAYER_FAILURE|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE"
)


class ProxyResponseError(TransportError):
    """A proxy did not open a tunnel; nothing was sent to the server."""


async def open_connection(
    dialer: Dialer, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None = None
) -> Connection:
    """Connect to *origin*.

    Args:
        dialer: makes the socket.
        origin: the server.
        context: the context for TLS with the server; None for plain http.
        proxy: the proxy to go through. With TLS it opens a tunnel. Plain http has none: each
            request names the server (RFC 9112 §3.2.2), since a proxy may allow tunnels to ports of
            https only.

    Raises:
        TransportError: there is no connection, so nothing was sent.

    Cancellation:
        Every socket is closed.
    """
    connected: Socket = await _dial(dialer, origin, proxy)
    try:
        if proxy is not None and proxy.tls is not None:
            proxy_context = await proxy.tls.context()
            connected = await _start_tls(
                connected, proxy.origin, proxy_context, origin, f"the proxy {proxy.url}: "
            )
        if context is not None:
            if proxy is not None:
                await _open_tunnel(connected, origin, proxy)
            connected = await _start_tls(connected, origin, context, origin)
    except BaseException:
        connected.close()
        raise
    return Connection(connected, context)


async def _dial(dialer: Dialer, origin: Origin, proxy: Proxy | None) -> socket.socket:
    destination = origin if proxy is None else proxy.origin
    try:
        return await dialer.connect(destination.host, destination.port)
    except (OSError, UnicodeError) as error:
        # UnicodeError: the host name cannot be looked up.
        why = f"{error}" if proxy is None else f"the proxy {proxy.url} cannot be reached: {error}"
        raise connect_failed(origin, why, final=isinstance(error, UnicodeError)) from error


async def _open_tunnel(connected: Socket, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy for a tunnel, and read its response.

    Raises:
        ProxyResponseError: the proxy did not open one.
    """
    connection = Connection(connected, None)
    # A successful response has no body, even if its headers announce one (RFC 9110 §9.3.6).
    response = ResponseParser(0, bodiless=True)
    try:
        await connection.write(proxy.format_connect(origin))
        while not response.head_complete:
            await read_more(connection, response)
    except (OSError, TransportError) as error:
        if not response.head_complete:
            # A response that began may be a refusal of the password, which is not sent again.
            final = response.started and proxy.has_credentials
            raise _proxy_failed(origin, proxy, _describe_end(error), final=final) from error
        if response.status < 300:
            why = "sent more than a response to CONNECT"
            raise _proxy_failed(origin, proxy, why, final=True) from error
    finally:
        connection.detach()

    if response.status >= 300:
        final = response.status in _FINAL_STATUSES
        raise _proxy_failed(origin, proxy, _describe_status(proxy, response.status), final=final)


def _describe_end(error: OSError | TransportError) -> str:
    if isinstance(error, OSError):
        return f"broke off the connection: {error}"
    if error.kind is FailureKind.CONNECTION_LOST:
        return "closed the connection"
    return f"gave no valid response: {error.message}"


_FINAL_STATUSES: Final = frozenset({403, 407})


def _describe_status(proxy: Proxy, status: int) -> str:
    if status == 407:
        return (
            "refused the user and password in its URL (HTTP 407): correct them first, since some "
            "proxies lock an account after a few attempts"
            if proxy.has_credentials
            else "requires a user and a password (HTTP 407): write them into its URL, as in "
            "http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded"
        )
    if status == 403:
        return (
            "does not allow connections to this server (HTTP 403): ask its administrator, or, if "
            "the server can be reached without it, name the server in NO_PROXY"
        )
    return f"answered CONNECT with HTTP {status}"


def _proxy_failed(
    origin: Origin, proxy: Proxy, why: str, *, final: bool = False
) -> ProxyResponseError:
    message = f"no connection to {origin.host} port {origin.port}: the proxy {proxy.url} {why}"
    return ProxyResponseError(FailureKind.CONNECT_FAILED, message, sent=False, final=final)


def check_forwarded(origin: Origin, proxy: Proxy | None, status: int) -> None:
    """Check the status of a response, if a proxy forwarded the request.

    Raises:
        ProxyResponseError: it is the proxy's refusal of the user and password.
    """
    if status == 407 and proxy is not None and origin.scheme == "http":
        raise _proxy_failed(origin, proxy, _describe_status(proxy, status), final=True)


async def _start_tls(
    connected: Socket, peer: Origin, context: ssl.SSLContext, origin: Origin, prefix: str = ""
) -> ssl.SSLSocket | NestedTlsSocket:
    """Make TLS with *peer* over a connected socket; close the socket if that fails."""
    wrapped: ssl.SSLSocket | NestedTlsSocket | None = None
    try:
        wrapped = _wrap(connected, peer, context)
        await _shake_hands(wrapped)
    except (OSError, ValueError) as error:
        (wrapped or connected).close()
        why = f"{prefix}{describe_error(error)}"
        raise connect_failed(origin, why, final=is_lasting(error)) from error
    except BaseException:
        (wrapped or connected).close()
        raise

    protocol = wrapped.selected_alpn_protocol()
    if protocol not in {None, "http/1.1"}:
        wrapped.close()
        why = f"{prefix}the TLS context offers {protocol}, which kaleden does not speak"
        raise connect_failed(origin, why, final=True)
    return wrapped


def _wrap(
    connected: Socket, peer: Origin, context: ssl.SSLContext
) -> ssl.SSLSocket | NestedTlsSocket:
    if isinstance(connected, ssl.SSLSocket):
        return NestedTlsSocket(connected, context, peer.host)

    assert isinstance(connected, socket.socket)  # noqa: S101  # two layers of TLS are the most
    return context.wrap_socket(
        connected,
        server_hostname=peer.host,
        do_handshake_on_connect=False,
        # Otherwise a body that ends with the connection could be truncated on the network path.
        suppress_ragged_eofs=False,
    )


async def _shake_hands(wrapped: ssl.SSLSocket | NestedTlsSocket) -> None:
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
    """Return whether the server refused the client's certificate, or requires one.

    In TLS 1.3 the client learns this only from its first read (RFC 8446 §4.4.2.4).
    """
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason is not None and bool(_REFUSALS.search(reason))


def is_lasting(error: BaseException) -> bool:
    """Return whether TLS would fail in the same way a second time."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    if isinstance(error, ssl.SSLError):
        return is_certificate_refusal(error) or bool(_LASTING.search(error.reason or ""))
    return isinstance(error, ValueError)


def describe_error(error: Exception) -> str:
    """Return a sentence about a failure of TLS."""
    if isinstance(error, OSError) and is_certificate_refusal(error):
        return f"the server refused the client's certificate, or wants one: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return f"TLS was not agreed on: {error}"


def connect_failed(origin: Origin, why: str, *, final: bool = False) -> TransportError:
    """Return the error for a connection that could not be made; see `TransportError`."""
    message = f"no connection to {origin.host} port {origin.port}: {why}"
    return TransportError(FailureKind.CONNECT_FAILED, message, sent=False, final=final)
