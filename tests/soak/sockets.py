"""The soak over sockets, to a server in this process that breaks what it likes."""

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
"""Seconds for a server to notice that its client has gone."""


def reply(body: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Server:
    """Knows every session but those that were launched, which it forgets when they are deleted."""

    def __init__(self) -> None:
        self.requests = 0
        self.launched: dict[str, str] = {}
        self.chance = random.Random(8)

    async def handle(self, stream: SocketStream) -> None:
        while True:
            request = await read_request(stream)
            self.requests += 1
            answer = self.answer(request)
            fate = self.chance.random()
            if fate < 0.01:
                return
            if fate < 0.02:
                await stream.send(answer[: len(answer) // 2])
                return
            if fate < 0.03:
                await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
                return
            if fate < 0.05:
                await anyio.sleep(self.chance.random() * 0.02)
            await stream.send(answer)

    def answer(self, request: bytes) -> bytes:
        method, target, _ = request.split(b" ", 2)
        key, _, view = target.decode().partition("/session/")[2].partition("?")
        if method == b"POST" and not key:
            return self.create(request)
        if method == b"DELETE":
            self.launched.pop(key, None)
            return reply("")
        if method == b"POST":
            return reply("")
        if not key:
            sessions = [session_object(k, name=name) for k, name in self.launched.items()]
            return reply(json.dumps(sessions), kind="application/json")
        if view:
            return reply("a line\n" if "logs" in view else "")
        return reply(json.dumps(session_object(key)), kind="application/json")

    def create(self, request: bytes) -> bytes:
        name = request.partition(b"name=")[2].partition(b"&")[0].decode()
        key = f"s{self.requests:x}"
        self.launched[key] = name
        return reply(f"{key}\n")


def soak_over_sockets(backend: Any, operations: int) -> Report:
    """Run so many operations on one client."""
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
            # They tell nobody.
            while len(anyio.get_running_tasks()) > report.before.tasks:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        report.after = measure(operations)
    tracemalloc.stop()
    report.sessions = len(server.launched)
    return report
