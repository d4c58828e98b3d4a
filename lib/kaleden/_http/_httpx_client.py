"""One exchange over an httpx client, kaleden's own or the caller's.

The client may be one of httpx or of httpx2, which continues it under another name: classes and
exceptions are taken from the library of the client.
"""

from __future__ import annotations

import ssl
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import cache
from types import ModuleType
from typing import Any, Protocol, final

from kaleden._errors import ConfigurationError, FailureKind
from kaleden._http._h1._connect import is_lasting
from kaleden._http._transport import (
    CONNECT_TIMEOUT,
    MAX_BODY,
    MAX_OMITTED,
    TransportError,
    format_endless,
    format_too_long,
)
from kaleden._wire import FORM_TYPE, Request, Response


async def exchange(
    library: ModuleType, client: Any, url: str, request: Request, max_body: int
) -> Response:
    """Send *request* with *client* and read the whole response, of *max_body* bytes at most.

    The target of *request* is under *url*; *client* belongs to *library*, ``httpx`` or ``httpx2``.

    Raises:
        TransportError: there was no complete response.
    """
    try:
        outgoing = client.build_request(
            request.method,
            f"{url}/{request.target}",
            # An auth may sign the body.
            content=request.form or None,
            headers=_headers(request),
            # The engine bounds the attempt as a whole. Only the time to connect is bounded here,
            # since after that it is certain that nothing was sent.
            timeout=library.Timeout(None, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT),
        )
        if request.form:
            outgoing.stream = _form_class(library)(request.form)
        response = await client.send(outgoing, stream=True, follow_redirects=False)
        try:
            status, headers = response.status_code, response.headers
            size = request.max_body or max_body
            if request.keep_last and 200 <= status < 300:
                body, omitted = await _read_last(library, response, size, max_body)
                return Response(status, headers, body, omitted)

            return Response(status, headers, await _read(library, response, max_body))
        finally:
            await response.aclose()
    except (library.HTTPError, library.InvalidURL, UnicodeError) as error:
        # UnicodeError: the host name cannot be looked up.
        raise _translate(library, error) from error


@cache
def _form_class(library: ModuleType) -> Any:
    """Return a class for bodies in one piece.

    The library's own iterates with an async generator; trio warns of one that is not closed.
    """

    class Form(library.ByteStream):  # type: ignore[name-defined,misc]
        def __aiter__(self) -> AsyncIterator[bytes]:
            return _SinglePiece(b"".join(self))

    return Form


class _SinglePiece(AsyncIterator[bytes]):
    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


async def _read(library: ModuleType, response: Any, max_body: int) -> bytes:
    """Read the body, up to *max_body* bytes."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_body:
                # A `break` would leave httpx's chain of async generators open. Without a connection
                # the innermost one ends, and with it all others.
                await response.aclose()
    except (library.HTTPError, library.StreamError):
        if len(body) <= max_body:
            raise

    if len(body) > max_body:
        message = f"the response is {format_too_long(max_body)}"
        raise TransportError(FailureKind.PROTOCOL, message, sent=True)
    return bytes(body)


async def _read_last(
    library: ModuleType, response: Any, size: int, max_body: int
) -> tuple[bytes, int]:
    """Read the whole body; return its last *size* bytes, and the number of those before."""
    endless = max_body * MAX_OMITTED
    pieces, held, omitted = deque[bytes](), 0, 0
    try:
        async for piece in response.aiter_raw():
            pieces.append(piece)
            held += len(piece)
            while held - len(pieces[0]) >= size:
                dropped = len(pieces.popleft())
                held, omitted = held - dropped, omitted + dropped
            if omitted + held > endless:
                # See `_read`.
                await response.aclose()
    except (library.HTTPError, library.StreamError):
        if omitted + held <= endless:
            raise

    if omitted + held > endless:
        message = f"the response is {format_endless(max_body)}"
        raise TransportError(FailureKind.PROTOCOL, message, sent=True)

    body = b"".join(pieces)
    excess = max(0, held - size)
    return body[excess:], omitted + excess


def _headers(request: Request) -> dict[str, str]:
    # No compression: a small response gains nothing, and no response can be larger than the bytes
    # that were received.
    headers = {"Accept": request.accept, "Accept-Encoding": "identity", **dict(request.headers)}
    if request.form:
        headers["Content-Length"] = str(len(request.form))
        # The server reads parameters from a body of this type only.
        headers["Content-Type"] = FORM_TYPE
    return headers


def _translate(library: ModuleType, error: Exception) -> TransportError:
    for cause in _causes(error):
        if isinstance(cause, TransportError):
            # From an `AnyioTransport`; it holds more details than the httpx exception.
            return TransportError(cause.kind, cause.message, sent=cause.sent, final=cause.final)

    kind, sent, final = FailureKind.PROTOCOL, True, False
    if isinstance(error, (library.ConnectError, library.ConnectTimeout, library.PoolTimeout)):
        kind, sent, final = FailureKind.CONNECT_FAILED, False, _is_final(error)
    elif isinstance(error, (library.ProxyError, UnicodeError)):
        kind, sent = FailureKind.CONNECT_FAILED, False
    elif isinstance(error, (library.UnsupportedProtocol, library.InvalidURL)):
        kind, sent, final = FailureKind.CONNECT_FAILED, False, True
    elif isinstance(error, library.TimeoutException):
        kind = FailureKind.TIMED_OUT
    elif isinstance(error, library.NetworkError):
        kind, final = FailureKind.CONNECTION_LOST, _is_final(error)
    elif isinstance(error, library.RemoteProtocolError):
        kind = _protocol_kind(error)
    return TransportError(kind, _describe(error), sent=sent, final=final)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_final(error: BaseException) -> bool:
    """Return whether the error comes from TLS, and would come a second time."""
    return any(isinstance(cause, ssl.SSLError) and is_lasting(cause) for cause in _causes(error))


def _protocol_kind(error: Exception) -> FailureKind:
    # httpx has one class for a response that broke off and one that is not HTTP; only the text
    # differs.
    broke_off = "disconnected" in str(error) or "peer closed" in str(error)
    return FailureKind.CONNECTION_LOST if broke_off else FailureKind.PROTOCOL


def _describe(error: Exception) -> str:
    """Return name and text of an exception; some of httpx's have no text."""
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


class HttpClient(Protocol):
    """An ``httpx.AsyncClient`` or ``httpx2.AsyncClient``."""

    @property
    def base_url(self) -> Any:
        """The URL that relative ones are under."""
        ...

    @property
    def build_request(self) -> Any:
        """Build a request, with the client's own headers, cookies and parameters."""
        ...

    @property
    def send(self) -> Any:
        """Send a request, through the client's own auth, hooks and proxies."""
        ...


class HttpAuth(Protocol):
    """An ``httpx.Auth``."""

    def async_auth_flow(self, request: Any, /) -> AsyncGenerator[Any, Any]:
        """Yield the requests to send, and receive their responses."""
        ...


@final
class CallerTransport:
    """Sends requests with the caller's client, and leaves it open.

    Headers, cookies, auth, hooks, proxies and pool are those of the client. The time-outs are not:
    the engine bounds each attempt as a whole. The other arguments are those of `DirectTransport`.
    """

    def __init__(self, client: HttpClient, root: str, base: str, max_body: int = MAX_BODY) -> None:
        self._client = client
        self._library = library_of(client)
        self._root = root
        self._base = base
        self._max_body = max_body

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole response; see `Transport.send`."""
        url = self._base if request.versioned else self._root
        return await exchange(self._library, self._client, url, request, self._max_body)

    def __repr__(self) -> str:
        return f"<CallerTransport {self._base}>"


def library_of(client: object) -> ModuleType:
    """Return the library of a client, or of a class that it inherits from.

    Raises:
        ConfigurationError: it is not a client of httpx or httpx2.
    """
    for ancestor in type(client).__mro__:
        library = ancestor.__module__.partition(".")[0]
        if library in {"httpx", "httpx2"} and ancestor.__name__ == "AsyncClient":
            return sys.modules[library]

    msg = f"client= takes an httpx.AsyncClient or an httpx2.AsyncClient, not {type(client)!r}"
    raise ConfigurationError(msg)
