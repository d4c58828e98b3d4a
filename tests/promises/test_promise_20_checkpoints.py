"""Every async method is a checkpoint, and none keeps the event loop to itself."""

from __future__ import annotations

import gc
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytest.importorskip("anycorn")

import kaleden
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from programs import IMAGE
from promises.conftest import LOOPS
from support import data, session_id, session_object, session_on

EMPTY = Path("/dev/null")


def nothing_failed(session: kaleden.AsyncSession) -> kaleden.Outcomes[kaleden.SessionInfo]:
    return kaleden.Outcomes("info", [], again=session.info)


Call = Callable[[kaleden.AsyncSession], Awaitable[object]]

CALLS: dict[str, list[Call]] = {
    "fetch": [lambda session: session.fetch()],
    "apps": [lambda session: session.apps("a")],
    "stats": [lambda session: session.stats()],
    "images": [lambda session: session.images()],
    "context": [lambda session: session.context()],
    "repositories": [lambda session: session.repositories()],
    "availability": [lambda session: session.availability()],
    "info": [lambda session: session.info([]), lambda session: session.info(["a", "/"])],
    "logs": [lambda session: session.logs([]), lambda session: session.logs("/")],
    "events": [lambda session: session.events([]), lambda session: session.events("/")],
    "connect": [lambda session: session.connect([]), lambda session: session.connect("/")],
    "renew": [lambda session: session.renew([]), lambda session: session.renew("/")],
    "destroy": [lambda session: session.destroy([]), lambda session: session.destroy("/")],
    "destroy_with": [lambda session: session.destroy_with("nothing")],
    "wait": [lambda session: session.wait([]), lambda session: session.wait("/")],
    "create": [lambda session: session.create("fits", IMAGE)],
    "run": [lambda session: session.run("fits", IMAGE)],
    "reap": [lambda session: session.reap(EMPTY)],
    "retry_failed": [lambda session: session.retry_failed(nothing_failed(session))],
}


async def take_turns(turns: list[float]) -> None:
    while True:
        turns.append(time.thread_time())
        await checkpoint()


def test_every_method_is_tried_here() -> None:
    methods = inspect.getmembers(kaleden.AsyncSession, inspect.iscoroutinefunction)
    assert set(CALLS) == {name for name, _ in methods if name[0] != "_"}


@pytest.mark.parametrize("name", CALLS)
async def test_a_method_lets_others_run_and_can_be_cancelled(name: str) -> None:
    for call in CALLS[name]:
        async with (
            MemoryTransport(latency=0, duration=0) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            turns: list[float] = []
            async with anyio.create_task_group() as group:
                group.start_soon(take_turns, turns)
                await checkpoint()
                before = len(turns)
                await call(session)
                assert len(turns) > before
                group.cancel_scope.cancel()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call(session)
            assert scope.cancelled_caught


# --- how long ------------------------------------------------------------------------------------

MOST = 0.005  # seconds of the processor's time
TRIES = 8
MANY = 10_000
PLAIN = [loop for loop in LOOPS if loop.id != "asyncio"]
"""Not in debug mode, in which all takes many times as long."""


async def everything(request: Request) -> Response:
    """Answer as a server with many sessions."""
    if request.target == "session":
        return LISTED
    return data(session_object(session_id(request)))


IDS = [f"id{number}" for number in range(MANY)]
LISTED = data([session_object(key) for key in IDS])


async def read_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(iter(IDS[:200])) as results:
        async for _ in results:
            pass


async def wait_in_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.wait(IDS, "Running") as results:
        async for _ in results:
            pass


LARGE: dict[str, Call] = {
    "fetch": lambda session: session.fetch(),
    "info": lambda session: session.info(IDS[:500]),
    "info, one id": lambda session: session.info(["a"] * 50_000),
    "info, no ids": lambda session: session.info(["/"] * 50_000),
    "destroy": lambda session: session.destroy(IDS[:200]),
    "wait": lambda session: session.wait(IDS, "Running"),
    "stream": read_a_stream,
    "stream.wait": wait_in_a_stream,
}


@contextmanager
def no_collections() -> Generator[None]:
    """Leave out what the garbage collector takes for all that other tests have left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def slowness() -> float:
    """How many times longer than a machine of today this one takes now; at least 1."""
    began, count = time.thread_time(), 0
    for number in range(20_000):
        count += number
    return max(1.0, (time.thread_time() - began) / 0.001)


async def longest(call: Call) -> float:
    """The processor's time that others waited for their turn, at the worst moment."""
    session, _ = session_on(everything, concurrency=4)
    turns: list[float] = []
    with no_collections():
        async with session, anyio.create_task_group() as group:
            group.start_soon(take_turns, turns)
            await checkpoint()
            await call(session)
            await checkpoint()
            group.cancel_scope.cancel()
    return max(later - earlier for earlier, later in pairwise(turns))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("anyio_backend", PLAIN, indirect=True)
async def test_no_method_holds_the_loop_for_long(name: str) -> None:
    # The machine may be slow at any one time, but what is too long is so each time.
    tried = []
    for _ in range(TRIES):
        slow = slowness()
        tried.append(await longest(LARGE[name]) / max(slow, slowness()))
        if tried[-1] < MOST:
            return
    pytest.fail(f"others waited {min(tried) * 1000:.1f} ms for their turn")
