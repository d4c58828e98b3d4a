"""One exchange over an httpx client, ours or a caller's.

The client may be of httpx or of httpx2, which continues it under another name: classes and
exceptions are looked up in the library that the client comes from.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Protocol, final

from kaleden._errors import ConfigurationError, FailureKind
from kaleden._http._h1._connect import is_lasting
from kaleden._http._transport import CONNECT_TIMEOUT, MAX_BODY, TransportError, too_long_for
from kaleden._wire import FORM_TYPE, Request, Response


async def exchange(
    library: ModuleType,
    client: Any,
    url: str,
    request: Request,
    token: str | None,
    max_body: int,
) -> Response:
    """Send *request* to *url* with *client* and read the whole reply.

    Args:
        library: the module ``httpx`` or ``httpx2``, whichever *client* is of.
        client: an ``AsyncClient``.
        url: where to, without the request's own target.
        request: what to ask.
        token: the bearer token to send, if any.
        max_body: bytes of the reply, at most.

    Raises:
        TransportError: there was no whole reply.
    """
    headers = _headers(request)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with _translated_errors(library):
        outgoing = client.build_request(
            request.method,
            f"{url}/{request.target}",
            headers=headers,
            # The whole attempt has its time from the engine. Only a connection that cannot be made
            # is told apart here, since then nothing was sent.
            timeout=library.Timeout(None, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT),
        )
        if request.form:
            outgoing.stream = _form_class(library)(request.form)
        reply = await client.send(outgoing, stream=True, follow_redirects=False)
        try:
            return Response(reply.status_code, reply.headers, await _read(library, reply, max_body))
        finally:
            await reply.aclose()


@cache
def _form_class(library: ModuleType) -> Any:
    """Make the class of bodies in one piece: the library's own is an async generator.

    trio warns of a generator that is left.
    """

    class Form(library.AsyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, form: bytes) -> None:
            self._form = form

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(self._form)

    return Form


class _Once(AsyncIterator[bytes]):
    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


async def _read(library: ModuleType, reply: Any, max_body: int) -> bytes:
    """Read the body, as long as it is bearable."""
    body = bytearray()
    too_long = TransportError(
        FailureKind.PROTOCOL, f"the reply is {too_long_for(max_body)}", sent=True
    )
    try:
        async for chunk in reply.aiter_raw():
            body += chunk
            if len(body) > max_body:
                # Not simply left: httpx reads through a chain of generators, all of which end only
                # if the innermost does. Without a connection, it does.
                await reply.aclose()
    except library.HTTPError as error:
        if len(body) > max_body:
            raise too_long from error
        raise

    if len(body) > max_body:
        raise too_long
    return bytes(body)


def _headers(request: Request) -> dict[str, str]:
    # Nothing compressed: a small reply gains nothing, and no reply can be larger than it seems.
    headers = {"Accept": request.accept, "Accept-Encoding": "identity", **dict(request.headers)}
    if request.form:
        headers["Content-Length"] = str(len(request.form))
        # The server reads parameters from a body of this type only.
        headers["Content-Type"] = FORM_TYPE
    return headers


@contextmanager
def _translated_errors(library: ModuleType) -> Generator[None]:
    """Turn the library's exceptions into ours, by what is known of whether the request left."""
    try:
        yield
    except (library.ConnectError, library.ConnectTimeout, library.PoolTimeout) as error:
        raise TransportError(
            FailureKind.CONNECT_FAILED, _told(error), sent=False, final=_is_final(error)
        ) from error
    except library.ProxyError as error:
        raise TransportError(FailureKind.CONNECT_FAILED, _told(error), sent=False) from error
    except (library.UnsupportedProtocol, library.InvalidURL) as error:
        raise TransportError(
            FailureKind.CONNECT_FAILED, _told(error), sent=False, final=True
        ) from error
    except library.TimeoutException as error:
        raise TransportError(FailureKind.TIMED_OUT, _told(error), sent=True) from error
    except library.NetworkError as error:
        raise TransportError(
            FailureKind.CONNECTION_LOST, _told(error), sent=True, final=_is_final(error)
        ) from error
    except library.RemoteProtocolError as error:
        raise TransportError(_protocol_kind(error), _told(error), sent=True) from error
    except library.HTTPError as error:
        raise TransportError(FailureKind.PROTOCOL, _told(error), sent=True) from error
    except UnicodeError as error:
        # Of a host name that cannot be looked up.
        raise TransportError(FailureKind.CONNECT_FAILED, _told(error), sent=False) from error


def _is_final(error: BaseException | None) -> bool:
    """Tell whether TLS, which the library's exceptions come from, would fail a second time."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and is_lasting(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _protocol_kind(error: Exception) -> FailureKind:
    # httpx has one class for a reply that broke off and for one that is not HTTP; only the text
    # differs.
    broke_off = "disconnected" in str(error) or "peer closed" in str(error)
    return FailureKind.CONNECTION_LOST if broke_off else FailureKind.PROTOCOL


def _told(error: Exception) -> str:
    """Say what happened; some of httpx's exceptions have no text but their name."""
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
        """Makes a request, with the client's own headers, cookies and parameters."""
        ...

    @property
    def send(self) -> Any:
        """Sends a request, through the client's own auth, hooks and proxies."""
        ...


class HttpAuth(Protocol):
    """An ``httpx.Auth``."""

    def async_auth_flow(self, request: Any, /) -> AsyncGenerator[Any, Any]:
        """Give the requests to send, and take their replies."""
        ...


@final
class CallerTransport:
    """Carries requests with the caller's client, and leaves it open.

    Its headers, cookies, auth, hooks, proxies and pool are its own. The times are not: an attempt
    is bounded as a whole by whoever sends it.

    Args:
        client: the client.
        root: the server's URL without version, for what has no version.
        base: the URL that versioned resources are under.
        max_body: bytes of one reply, at most.
    """

    def __init__(self, client: HttpClient, root: str, base: str, max_body: int = MAX_BODY) -> None:
        self._client = client
        self._library = library_of(client)
        self._root = root
        self._base = base
        self._max_body = max_body

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply; see `Transport.send`."""
        url = self._base if request.versioned else self._root
        return await exchange(self._library, self._client, url, request, None, self._max_body)

    def __repr__(self) -> str:
        return f"<CallerTransport {self._base}>"


def library_of(client: object) -> ModuleType:
    """Find the library that a client is of, or a class that it inherits from.

    Raises:
        ConfigurationError: it is no client that can be used.
    """
    for ancestor in type(client).__mro__:
        library = ancestor.__module__.partition(".")[0]
        if library in {"httpx", "httpx2"} and ancestor.__name__ == "AsyncClient":
            return sys.modules[library]

    msg = f"client= takes an httpx.AsyncClient or an httpx2.AsyncClient, not {type(client)!r}"
    raise ConfigurationError(msg)
