"""The port of an embedded platform, and how it is served."""

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

_handshakes = logging.getLogger("anyio.streams.tls")
_ours = ContextVar("_ours", default=False)
"""Whether a task serves an embedded platform."""


def listen(port: int) -> socket.socket:
    """Take a port on the loopback interface; the server begins to listen on it."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except BaseException:
        listener.close()
        raise
    return listener


def hang_up(port: int) -> None:
    """Shut down all connections to this port of ours.

    The server finishes a send that it has begun, come what may, and so would wait for ever for a
    client that has stopped to read. It has no list of its connections; the system has.
    """
    for name in os.listdir("/dev/fd"):
        # What is no socket, not connected, or closed meanwhile, is none of them.
        with suppress(OSError):
            connection = socket.socket(fileno=int(name))
            try:
                connection.getpeername()
                if connection.getsockname() == (HOST, port):
                    connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()


class _TlsConfig(Config):
    """Serves TLS with a context of ours."""

    def __init__(self, certificate: Path, context: ssl.SSLContext) -> None:
        super().__init__()
        # That they are set is how the server knows.
        self.certfile = self.keyfile = str(certificate)
        self._context = context

    def create_ssl_context(self) -> ssl.SSLContext:
        return self._context


def make_config(descriptor: int, tls: tuple[Path, ssl.SSLContext] | None) -> Config:
    """Make the server's configuration.

    Args:
        descriptor: of the socket.
        tls: the server's certificate, and what to make connections with; None for plain HTTP.
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
    """Serve until cancelled, and log no handshake that fails: its client tells of it.

    Other listeners of this process log theirs as ever.
    """
    _ours.set(True)

    def is_not_ours(_: logging.LogRecord) -> bool:
        return not _ours.get()

    _handshakes.addFilter(is_not_ours)
    try:
        await _serve(app, config, shutdown_trigger=anyio.sleep_forever, task_status=task_status)
    finally:
        _handshakes.removeFilter(is_not_ours)
