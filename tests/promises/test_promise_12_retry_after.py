"""Retry-After pauses the whole client, whichever worker or thread is about to ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import anyio
import pytest
from attrs import define, field

import kaleden
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import PLAIN_BACKENDS, FakeTransport, described, text


@define
class Server:
    """Answers in a tenth of a second, and asks once for a pause."""

    refused: int
    seconds: float
    status: int = 503
    left: list[float] = field(factory=list[float])
    told: float = 0.0
    pausing: Event = field(factory=Event)

    async def reply(self, request: Request) -> Response:
        self.left.append(anyio.current_time())
        is_refused = len(self.left) == self.refused
        await anyio.sleep(0.1)
        if not is_refused:
            return await described(request)

        self.told = anyio.current_time()
        self.pausing.set()
        return text("come back later", self.status, **{"retry-after": f"{self.seconds:g}"})

    def check(self, count: int) -> None:
        """Nothing has left in the pause, and everything after it."""
        assert count == len(self.left)
        later = [time for time in self.left if time > self.told]
        assert later
        assert self.told + self.seconds <= min(later)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [0.5, 30.0, 300.0])
@pytest.mark.parametrize("refused", [1, 2, 7, 50])
def test_no_worker_asks_during_a_pause(
    virtual: Virtual, status: int, seconds: float, refused: int
) -> None:
    async def ask() -> None:
        server = Server(refused, seconds, status)
        transport = FakeTransport(server.reply)
        retry = kaleden.RetryPolicy(total=1000)
        client = kaleden.AsyncSession(transport=transport, concurrency=4, retry=retry)
        async with client as session, anyio.create_task_group() as group:
            group.start_soon(session.info, [f"i{number}" for number in range(20)])
            group.start_soon(session.logs, [f"l{number}" for number in range(20)])
            group.start_soon(session.renew, [f"r{number}" for number in range(20)])
            # One who comes while the gate is paused, if it is by then.
            await anyio.sleep(0.3)
            group.start_soon(session.info, "late")
        server.check(3 * 20 + 1 + 1)

    virtual.run(ask)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_no_thread_asks_during_a_pause(backend: str) -> None:
    server = Server(1, 0.3)
    session = kaleden.Session(transport=FakeTransport(server.reply), backend=backend)  # type: ignore[arg-type]
    with session, ThreadPoolExecutor(8) as threads:
        first = threads.submit(session.info, "first")
        assert server.pausing.wait(60)
        others = [
            threads.submit(session.info, [f"{number}-{each}" for each in range(5)])
            for number in range(7)
        ]
        assert all(call.result().ok for call in [first, *others])
        assert 1 == session.statistics().gate.pauses
    server.check(1 + 1 + 35)
