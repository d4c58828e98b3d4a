"""The listening socket of the embedded platform, and the HTTP server's configuration."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

import anyio
from anycorn import Config
from anycorn import serve as _serve  # pyright: ignore[reportUnknownVariableType] - its WSGI half
from anyio.abc import TaskStatus

HOST = "127.0.0.1"

_tls_logger = logging.getLogger("anyio.streams.tls")
_serves_platform = ContextVar("_serves_platform", default=False)
"""Whether the current task serves an embedded platform."""


def bind_port(port: int) -> socket.socket:
    """Bind a socket to a port of the loopback interface; the server calls ``listen`` on it."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except BaseException:
        listener.close()
        raise
    return listener


def shut_down_connections(port: int) -> None:
    """Shut down all connections of this process to its own port.

    The server completes a send once it has begun, even when it is cancelled. A client that does
    not read would block it for ever. The server has no list of its connections, so this searches
    the open file descriptors.
    """
    for name in os.listdir("/dev/fd"):
        # Skip descriptors that are not sockets, not connected, or closed meanwhile.
        with suppress(OSError):
            connection = socket.socket(fileno=int(name))
            try:
                connection.getpeername()
                if connection.getsockname() == (HOST, port):
                    connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()


class _TlsConfig(Config):
    """A configuration that serves TLS with a given SSL context."""

    def __init__(self, certificate: Path, context: ssl.SSLContext) -> None:
        super().__init__()
        # anycorn serves TLS if these are set; the context itself comes from the method below.
        self.certfile = self.keyfile = str(certificate)
        self._context = context

    def create_ssl_context(self) -> ssl.SSLContext:
        return self._context


def make_config(descriptor: int, tls: tuple[Path, ssl.SSLContext] | None) -> Config:
    """Make the server's configuration.

    Args:
        descriptor: the file descriptor of the bound socket.
        tls: the file of the server's certificate, and the SSL context; None for plain HTTP.
    """
    config = Config() if tls is None else _TlsConfig(*tls)
    config.bind = [f"fd://{descriptor}"]
    config.backlog = 1024
    config.errorlog = None
    config.h11_max_incomplete_size = 65536
    config.include_server_header = False
    config.keep_alive_max_requests = 10**9
    config.keep_alive_timeout = 60
    return config


async def serve(
    app: Callable[..., Awaitable[None]], config: Config, *, task_status: TaskStatus[list[str]]
) -> None:
    """Serve until cancelled, without logging failed TLS handshakes: the client reports them.

    Failed handshakes of other listeners in this process are logged as usual.
    """
    _serves_platform.set(True)

    def is_other_task(_: logging.LogRecord) -> bool:
        return not _serves_platform.get()

    _tls_logger.addFilter(is_other_task)
    try:
        await _serve(app, config, shutdown_trigger=anyio.sleep_forever, task_status=task_status)
    finally:
        _tls_logger.removeFilter(is_other_task)
