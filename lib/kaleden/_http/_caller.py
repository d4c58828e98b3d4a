"""Requests through a client that the caller made, and closes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any, Protocol, final

from kaleden._errors import ConfigurationError
from kaleden._http._httpx_client import exchange
from kaleden._http._transport import MAX_BODY
from kaleden._wire import Request, Response


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
