"""The network backend of httpx, corrected in two respects.

uvloop tells what has come before anyio delivers a cancellation, and anyio does not cancel a task
that is about to wake. A server that always has more to say would so keep a task from ever being
cancelled, and httpx reads interim replies (RFC 9110 §15.2) for as long as they come.

httpcore's streams over TLS report the end of a connection without ``close_notify`` as an ordinary
end, on both backends, whatever the TLS context says. A reply that ends with its connection could be
truncated so (RFC 9112 §9.8).
"""

from __future__ import annotations

import ssl
from typing import Any, final

import httpcore
from anyio.lowlevel import checkpoint_if_cancelled


@final
class HeedfulBackend(httpcore.AsyncNetworkBackend):
    """Connects as *backend* does; what it makes is cancelled before a read, if not in one.

    Args:
        backend: makes the connections.
    """

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Connect over TCP."""
        return _HeedfulStream(await self._backend.connect_tcp(*args, **options))

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Connect over a socket in the file system."""
        return _HeedfulStream(await self._backend.connect_unix_socket(*args, **options))

    async def sleep(self, seconds: float) -> None:
        """Wait, in seconds."""
        await self._backend.sleep(seconds)


@final
class _HeedfulStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, *args: Any, **options: Any) -> bytes:
        await checkpoint_if_cancelled()
        received = await self._stream.read(*args, **options)
        if not received:
            self._check_end()
        return received

    async def write(self, *args: Any, **options: Any) -> None:
        await self._stream.write(*args, **options)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _HeedfulStream(await self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _check_end(self) -> None:
        """Raise `httpcore.ReadError` if TLS ended without ``close_notify``."""
        tls = self.get_extra_info("ssl_object")
        if tls is not None:
            try:
                tls.read(1)  # Returns nothing after ``close_notify``.
            except ssl.SSLError as error:
                raise httpcore.ReadError(str(error)) from error
