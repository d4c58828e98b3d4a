"""The limit: one epoll loop over non-blocking sockets, a strict parser for plain replies, and json.

It can do nothing else, and nobody should want it: no time-outs, no errors kept apart, no second
try. It tells what any client in Python could hope for on this machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from benchmarks.drivers.child import HEADERS, Client, Order
from benchmarks.drivers.play import play

_HEAD = re.compile(rb"HTTP/1\.1 200 [^\r\n]*\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"(?:\A|\r\n)content-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_REFUSED = re.compile(rb"(?:\A|\r\n)(?:transfer-encoding|content-encoding):", re.IGNORECASE)
_WAIT = (BlockingIOError, ssl.SSLWantReadError)


def parse(received: bytes) -> bytes | None:
    """Take the body out of a reply; None if it has not come whole.

    Raises:
        ValueError: it is not of the one shape that is understood.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    match = _HEAD.match(received)
    lengths = _LENGTH.findall(match[1]) if match else []
    if match is None or len(lengths) != 1 or _REFUSED.search(match[1]):
        raise ValueError("no plain reply of status 200")
    body = received[match.end() :]
    missing = int(lengths[0]) - len(body)
    if missing < 0:
        raise ValueError("more than the reply")
    return body if missing == 0 else None


class Raw(Client):
    """Connections, each of which waits for the reply to one request."""

    def __init__(self, order: Order, stack: ExitStack) -> None:
        super().__init__(order)
        parts = urlsplit(order.url)
        host, port = parts.hostname or "", parts.port or 0
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.before = f"GET {parts.path}/v1/session/".encode()
        self.after = f" HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}\r\n".encode()
        self.poll = stack.enter_context(select.epoll())
        self.socks: dict[int, socket.socket] = {}
        context = ssl.create_default_context(cafile=order.cafile) if order.cafile else None
        for _ in range(order.concurrency):
            sock = socket.create_connection((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.setblocking(False)
            stack.enter_context(sock)
            self.socks[sock.fileno()] = sock
            self.poll.register(sock.fileno(), select.EPOLLIN)

    async def one(self, key: str) -> Any:
        [(_, told)] = self.exchange([key])
        return told

    async def many(self, keys: Sequence[str]) -> Any:
        results = dict.fromkeys(keys)
        results.update(self.exchange(keys))
        return results

    def keys(self, results: Any) -> Iterable[str]:
        return [info["id"] for info in results.values()]

    async def stream(self, keys: Iterable[str]) -> AsyncGenerator[str]:
        for _, told in self.exchange(keys):
            yield told["id"]

    def exchange(self, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Ask for each session on the next free connection; yield what is told of each."""
        waiting = iter(keys)
        asked: dict[int, str] = {}
        received: dict[int, bytes] = {}

        def ask(fd: int) -> None:
            for key in waiting:
                asked[fd], received[fd] = key, b""
                self.socks[fd].send(self.before + key.encode() + self.after)
                return

        for fd in self.socks:
            ask(fd)
        while asked:
            for fd, _ in self.poll.poll():
                try:
                    piece = self.socks[fd].recv(65536)
                except _WAIT:
                    continue
                if not piece:
                    raise ConnectionError("the server closed a connection")
                received[fd] += piece
                body = parse(received[fd])
                if body is not None:
                    key = asked.pop(fd)
                    ask(fd)
                    yield key, json.loads(body)


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Raw]:
    """Dial all connections."""
    await asyncio.sleep(0)
    with ExitStack() as stack:
        yield Raw(order, stack)


if __name__ == "__main__":
    play(opened)
