"""A lower bound: one epoll loop over non-blocking sockets, a strict HTTP parser, and json.

It has no time-outs, no separate errors and no retries, so it is not meant for use. It shows the
speed that a client in Python can reach on this machine at best.
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

from benchmarks.drivers.child import HEADERS, Client, Job
from benchmarks.drivers.play import play

_HEAD = re.compile(rb"HTTP/1\.1 200 [^\r\n]*\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"(?:\A|\r\n)content-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_REFUSED = re.compile(rb"(?:\A|\r\n)(?:transfer-encoding|content-encoding):", re.IGNORECASE)
_WAIT = (BlockingIOError, ssl.SSLWantReadError)


def parse_body(received: bytes) -> bytes | None:
    """Return the body of a response; None if the response is incomplete.

    Raises:
        ValueError: the response is not a plain 200 with a Content-Length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    match = _HEAD.match(received)
    lengths = _LENGTH.findall(match[1]) if match else []
    if match is None or len(lengths) != 1 or _REFUSED.search(match[1]):
        raise ValueError("not a plain response of status 200")
    body = received[match.end() :]
    missing = int(lengths[0]) - len(body)
    if missing < 0:
        raise ValueError("more bytes than the response has")
    return body if missing == 0 else None


class Raw(Client):
    """A set of connections, each of which has at most one request in flight."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        super().__init__(job)
        parts = urlsplit(job.url)
        host, port = parts.hostname or "", parts.port or 0
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        self.before = f"GET {parts.path}/v1/session/".encode()
        self.after = f" HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}\r\n".encode()
        self.poll = stack.enter_context(select.epoll())
        self.socks: dict[int, socket.socket] = {}
        context = ssl.create_default_context(cafile=job.cafile) if job.cafile else None
        for _ in range(job.concurrency):
            sock = socket.create_connection((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.setblocking(False)
            stack.enter_context(sock)
            self.socks[sock.fileno()] = sock
            self.poll.register(sock.fileno(), select.EPOLLIN)

    async def one(self, key: str) -> Any:
        [(_, session)] = self.exchange([key])
        return session

    async def many(self, keys: Sequence[str]) -> Any:
        results = dict.fromkeys(keys)
        results.update(self.exchange(keys))
        return results

    def keys(self, results: Any) -> Iterable[str]:
        return [info["id"] for info in results.values()]

    async def stream(self, keys: Iterable[str]) -> AsyncGenerator[str]:
        for _, session in self.exchange(keys):
            yield session["id"]

    def exchange(self, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Request each session on the next free connection; yield each id and its session."""
        waiting = iter(keys)
        pending: dict[int, str] = {}
        received: dict[int, bytes] = {}

        def ask(fd: int) -> None:
            for key in waiting:
                pending[fd], received[fd] = key, b""
                self.socks[fd].send(self.before + key.encode() + self.after)
                return

        for fd in self.socks:
            ask(fd)
        while pending:
            for fd, _ in self.poll.poll():
                try:
                    piece = self.socks[fd].recv(65536)
                except _WAIT:
                    continue
                if not piece:
                    raise ConnectionError("the server closed a connection")
                received[fd] += piece
                body = parse_body(received[fd])
                if body is not None:
                    key = pending.pop(fd)
                    ask(fd)
                    yield key, json.loads(body)


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Raw]:
    """Open all connections."""
    await asyncio.sleep(0)
    with ExitStack() as stack:
        yield Raw(job, stack)


if __name__ == "__main__":
    play(open_client)
