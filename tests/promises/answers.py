"""Responses of a raw server, byte by byte."""

from __future__ import annotations

import json

from anyio.abc import SocketStream

from support import read_request, session_object


def build_response(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """Build a response after which the connection stays open."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve_sessions(stream: SocketStream) -> None:
    """Respond like a server that describes any session, and lists none."""
    while True:
        target = (await read_request(stream)).split(b" ", 2)[1].decode()
        key = target.partition("/session/")[2].partition("?")[0]
        described = session_object(key) if key else []
        await stream.send(build_response(json.dumps(described).encode()))
