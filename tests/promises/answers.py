"""What a server of the test's own says, byte by byte."""

from __future__ import annotations

import json

from anyio.abc import SocketStream

from support import read_request, session_object


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A reply that keeps the connection."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def describing(stream: SocketStream) -> None:
    """Answer as a server that knows every session, and lists none."""
    while True:
        target = (await read_request(stream)).split(b" ", 2)[1].decode()
        key = target.partition("/session/")[2].partition("?")[0]
        described = session_object(key) if key else []
        await stream.send(whole(json.dumps(described).encode()))
