"""Fakes and helpers that several test modules share."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

import kaleden
from kaleden._wire import Request, Response

HAS_TRIO = importlib.util.find_spec("trio") is not None

PLAIN_BACKENDS = ["asyncio", "trio"] if HAS_TRIO else ["asyncio"]
"""Backends without eager tasks and without asyncio's debug mode, for tests with many trials."""

IMAGE = "skaha/astroml:latest"
FULL_IMAGE = f"images.canfar.net/{IMAGE}"
"""The same image with its registry host, which requests contain."""

Reply = Callable[[Request], Awaitable[Response]]


def text(body: str, status: int = 200, **headers: str) -> Response:
    """Return a plain-text response, the format of the server's errors and ids."""
    return Response(status, {"content-type": "text/plain", **headers}, body.encode())


def data(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(status, {"content-type": "application/json"}, json.dumps(value).encode())


def session_object(session_id: str, **others: Any) -> dict[str, Any]:
    """Return a session as JSON data of the server."""
    name = others.pop("name", f"name-of-{session_id}")
    return {"id": session_id, "name": name, "type": "headless", "status": "Running", **others}


def ids(count: int) -> list[str]:
    """Return *count* different ids."""
    return [f"id{number}" for number in range(count)]


def session_id(request: Request) -> str:
    """Return the session id in the path of a request."""
    return request.target.removeprefix("session/").partition("?")[0].partition("/")[0]


def launch_name(request: Request) -> str:
    """Return the name in a request that creates a session."""
    [name] = parse_qs(request.form.decode())["name"]
    return name


class FakeTransport:
    """A transport without a server: it calls *reply*, and counts the requests in flight."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[Request] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await checkpoint()
            return await self.reply(request)
        finally:
            self.in_flight -= 1

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]


async def described(request: Request) -> Response:
    """Respond with a running session for any id."""
    return data(session_object(session_id(request)))


async def stalled(request: Request) -> Response:
    """Never respond."""
    await anyio.sleep_forever()
    raise AssertionError


def session_on(reply: Reply, **options: Any) -> tuple[kaleden.AsyncSession, FakeTransport]:
    """Create a client on a fake transport, not entered; without retries unless *options* set it."""
    transport = FakeTransport(reply)
    return kaleden.AsyncSession(transport=transport, **{"retry": None, **options}), transport


class CheckpointCounter:
    """Counts how often another task runs."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await checkpoint()
            self.count += 1


def poll_until(condition: Callable[[], object], limit: float = 100) -> None:
    """Poll from synchronous code until *condition* holds, for at most *limit* seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.001)


Handler = Callable[[SocketStream], Awaitable[None]]


async def read_request(stream: SocketStream) -> bytes:
    """Read one request of an HTTP client: its head, and its body if it has a length."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += await stream.receive()
    head, _, body = seen.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += await stream.receive()
    return head + b"\r\n\r\n" + body


@asynccontextmanager
async def raw_server(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve connections with *handler*, which writes raw bytes, and yield the URL."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await handler(stream)

    async with (
        await anyio.create_tcp_listener(local_host=host) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, handle)
        port = listener.extra(SocketAttribute.local_port)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/skaha"
        group.cancel_scope.cancel()
