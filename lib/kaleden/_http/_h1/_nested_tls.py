"""TLS inside TLS, for a server behind an https proxy.

`ssl.SSLContext.wrap_socket` takes the descriptor of a socket and bypasses a TLS layer that is there
already, so the inner TLS works on buffers in memory.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, TypeVar, final

from kaleden._http._h1._reader import PIECE

_MAX_RECORD: Final = 2**14
"""Bytes of plain text in one TLS record, at most (RFC 8446 §5.1)."""

_T = TypeVar("_T")


@final
class NestedTlsSocket:
    """A TLS connection inside another TLS connection.

    It has the methods of a non-blocking `ssl.SSLSocket` that a `Connection` needs, and they raise
    the same exceptions.

    Args:
        outer: the connection to the proxy, which does not block.
        context: the context for the inner TLS.
        host: the host name that the server's certificate must be for.

    Attributes:
        outer: as given.
        drained: whether a read has to wait for the outer socket. If not, there may be records in
            memory, of which the socket knows nothing.
    """

    __slots__ = ("_incoming", "_inner", "_outgoing", "_unsent", "_written", "drained", "outer")

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self.outer: ssl.SSLSocket = outer
        self.drained: bool = True
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._unsent = b""
        self._written = 0

    def fileno(self) -> int:
        """Return the descriptor of the outer socket."""
        return self.outer.fileno()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that both sides agreed on, if any."""
        return self._inner.selected_alpn_protocol()

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            self._run(self._inner.do_handshake)
        finally:
            # After a failure too: the server gets an alert.
            self._flush()

    def send(self, data: bytes | memoryview) -> int:
        """Send some of *data*; a call that raised must be repeated with the same data.

        Returns:
            The number of bytes that were sent.
        """
        if not self._written:
            # After an exception in `_flush` these bytes are encrypted already.
            self._written = self._run(lambda: self._inner.write(memoryview(data)[:_MAX_RECORD]))
        self._flush()
        written, self._written = self._written, 0
        return written

    def recv(self, size: int) -> bytes:
        """Return the content of one record, or nothing after ``close_notify``."""
        return self._run(lambda: self._inner.read(size))

    def close(self) -> None:
        """Close the outer socket at once."""
        self.outer.close()

    def _run(self, operation: Callable[[], _T]) -> _T:
        """Run an operation of the inner TLS, with one more piece from the server if it needs it.

        The caller waits before it tries again, so a server that always has more to send cannot
        block the event loop.
        """
        try:
            return operation()
        except ssl.SSLWantReadError:
            self._flush()
            self._receive()
        return operation()

    def _flush(self) -> None:
        # OpenSSL requires that a write which had to wait is repeated with the same bytes.
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or self._outgoing.read()
            try:
                self._unsent = self._unsent[self.outer.send(self._unsent) :]
            except ssl.SSLWantReadError:
                self.drained = True
                raise

    def _receive(self) -> None:
        self.drained = True
        if received := self.outer.recv(PIECE):
            self._incoming.write(received)
        else:
            # Without the server's own ``close_notify`` this is a truncation.
            self._incoming.write_eof()
        self.drained = False
