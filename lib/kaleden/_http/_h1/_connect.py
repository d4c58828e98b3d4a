"""A connection that is ready for use: dialled, and with its TLS made."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final

import anyio

from kaleden._errors import FailureKind
from kaleden._http._h1._connection import Connection
from kaleden._http._h1._dial import Dialler
from kaleden._http._h1._pool import Origin
from kaleden._http._transport import TransportError

# The names that OpenSSL gives to the alerts of RFC 8446 §6.2 which are about a certificate.
_REFUSALS: Final = re.compile("ALERT_(.*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")

# Names of OpenSSL's for what two sides of which one must change have to say to each other: no
# certificate, no common version, or no TLS at all where it was expected.
_LASTING: Final = re.compile(
    "ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION|UNRECOGNIZED_NAME)|WRONG_VERSION_NUMBER"
    "|HTTP_REQUEST|RECORD_LAYER_FAILURE|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE"
)


async def open_connection(
    dialler: Dialler, origin: Origin, context: ssl.SSLContext | None
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
        raise connect_failed(origin, told(error), final=is_lasting(error)) from error
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


def told(error: Exception) -> str:
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
