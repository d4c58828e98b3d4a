"""Fakes that several test modules share."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

import kaleden
from kaleden._wire import Request, Response

Reply = Callable[[Request], Awaitable[Response]]


def text(body: str, status: int = 200, **headers: str) -> Response:
    """A plain text reply, as the server's errors and ids are."""
    return Response(status, {"content-type": "text/plain", **headers}, body.encode())


def data(value: Any, status: int = 200) -> Response:
    """A JSON reply."""
    return Response(status, {"content-type": "application/json"}, json.dumps(value).encode())


def session_object(session_id: str, **others: Any) -> dict[str, Any]:
    """A session as the server describes it."""
    name = others.pop("name", f"name-of-{session_id}")
    return {"id": session_id, "name": name, "type": "headless", "status": "Running", **others}


def session_id(request: Request) -> str:
    """The id in a request's path."""
    return request.target.removeprefix("session/").partition("?")[0].partition("/")[0]


class FakeTransport:
    """A server inside the test: answers with *reply*, and counts what is in flight."""

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
    """Answer as a server that knows every session."""
    return data(session_object(session_id(request)))


async def stalled(request: Request) -> Response:
    """Answer as a server that never does."""
    await anyio.sleep_forever()
    raise AssertionError


def session_on(reply: Reply, **options: Any) -> tuple[kaleden.AsyncSession, FakeTransport]:
    """A session, not yet open, on a fake transport."""
    transport = FakeTransport(reply)
    return kaleden.AsyncSession(transport=transport, **options), transport
