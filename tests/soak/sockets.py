"""The soak over sockets, to a server in this process that breaks connections at random."""

from __future__ import annotations

import json
import random
import tracemalloc
from functools import partial
from typing import Any

import anyio
from anyio.abc import SocketStream

import kaleden
from soak.measures import PARTS, Report, measure
from soak.work import Work
from support import raw_server, read_request, session_object

PATIENCE = 60
"""Seconds for the server to notice that its client has closed the connection."""


def build_response(body: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Server:
    """A server that describes any session, and lists those that were launched and not deleted."""

    def __init__(self) -> None:
        self.requests = 0
        self.launched: dict[str, str] = {}
        self.rng = random.Random(8)

    async def handle(self, stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            self.requests += 1
            response = self.respond(request)
            roll = self.rng.random()
            if roll < 0.01:
                return
            if roll < 0.02:
                await stream.send(response[: len(response) // 2])
                return
            if roll < 0.03:
                await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
                return
            if roll < 0.05:
                await anyio.sleep(self.rng.random() * 0.02)
            await stream.send(response)

    def respond(self, request: bytes) -> bytes:
        method, target, _ = request.split(b" ", 2)
        key, _, view = target.decode().partition("/session/")[2].partition("?")
        if method == b"POST" and not key:
            return self.create(request)
        if method == b"DELETE":
            self.launched.pop(key, None)
            return build_response("")
        if method == b"POST":
            return build_response("")
        if not key:
            sessions = [session_object(k, name=name) for k, name in self.launched.items()]
            return build_response(json.dumps(sessions), kind="application/json")
        if view:
            return build_response("a line\n" if "logs" in view else "")
        return build_response(json.dumps(session_object(key)), kind="application/json")

    def create(self, request: bytes) -> bytes:
        name = request.partition(b"name=")[2].partition(b"&")[0].decode()
        key = f"s{self.requests:x}"
        self.launched[key] = name
        return build_response(f"{key}\n")


def soak_over_sockets(backend: Any, operations: int) -> Report:
    """Run a number of operations on one client."""
    return anyio.run(partial(_soak, operations, backend == "asyncio"), backend=backend)


async def _soak(operations: int, native: bool) -> Report:
    report = Report()
    server = Server()
    tracemalloc.start()
    async with raw_server(server.handle) as url:
        await anyio.wait_all_tasks_blocked()
        report.before = measure(0)
        async with kaleden.AsyncSession(url, "token", concurrency=16, settle=0.2) as session:
            work = Work(session, 8, 0.02, native)
            for part in range(PARTS + 1):
                await work.run(operations // PARTS if part else 50)
                report.table.append(measure(part * (operations // PARTS)))
            report.requests = server.requests
            report.rest = session.statistics()
        # The server's ends of the connections are in this process too.
        with anyio.move_on_after(PATIENCE):
            while len(anyio.get_running_tasks()) > report.before.tasks:  # noqa: ASYNC110 - no event
                await anyio.sleep(0.01)
        report.after = measure(operations)
    tracemalloc.stop()
    report.sessions = len(server.launched)
    return report
