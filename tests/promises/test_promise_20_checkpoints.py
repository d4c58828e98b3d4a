"""Every async method is a checkpoint, works in small steps, and never blocks the event loop."""

from __future__ import annotations

import gc
import inspect
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytest.importorskip("anycorn")

import kaleden
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from promises.conftest import LOOPS
from support import IMAGE, data, session_id, session_object, session_on

EMPTY = Path("/dev/null")


def make_empty_outcomes(session: kaleden.AsyncSession) -> kaleden.Outcomes[kaleden.SessionInfo]:
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
    "retry_failed": [lambda session: session.retry_failed(make_empty_outcomes(session))],
}


async def record_iterations(counts: list[int], count: Callable[[], int] = int) -> None:
    """Record a count at each iteration of the event loop."""
    while True:
        counts.append(count())
        await checkpoint()


def test_every_async_method_is_covered() -> None:
    methods = inspect.getmembers(kaleden.AsyncSession, inspect.iscoroutinefunction)
    assert set(CALLS) == {name for name, _ in methods if name[0] != "_"}


@pytest.mark.parametrize("name", CALLS)
async def test_method_is_a_checkpoint(name: str) -> None:
    for call in CALLS[name]:
        async with (
            MemoryTransport(latency=0, start_delay=0, duration=0) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            counts: list[int] = []
            async with anyio.create_task_group() as group:
                group.start_soon(record_iterations, counts)
                await checkpoint()
                before = len(counts)
                # trio runs the tasks of one tick in a random order, so one checkpoint may be
                # between two steps of the other task.
                await call(session)
                await call(session)
                assert len(counts) > before
                group.cancel_scope.cancel()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call(session)
            assert scope.cancelled_caught


PLAIN = [
    pytest.param(("asyncio", {}), id="asyncio"),
    *(loop for loop in LOOPS if loop.id != "asyncio"),
]
"""Not in debug mode, in which asyncio executes many more lines, and reads source files."""


# --- nothing blocks ------------------------------------------------------------------------------

BLOCKING = {"fork_exec", "fsync", "getaddrinfo", "gethostbyname", "open", "sleep"}
"""The names of C functions that wait for a disk, a name server, a process or a clock."""


@contextmanager
def record_blocking_calls() -> Generator[list[str]]:
    """Record the blocking functions that this thread calls."""
    called: list[str] = []

    def profile(frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in BLOCKING:
            called.append(f"{function.__name__} in {frame.f_code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield called
    finally:
        sys.setprofile(before)


def test_blocking_calls_are_recorded() -> None:
    with record_blocking_calls() as called:
        time.sleep(0)
        socket.getaddrinfo("127.0.0.1", 80)
        Path(os.devnull).read_bytes()
    names = [each.partition(" ")[0] for each in called]
    assert ["sleep", "getaddrinfo", "open"] == names


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("anyio_backend", PLAIN, indirect=True)
async def test_method_makes_no_blocking_call(name: str) -> None:
    async with (
        MemoryTransport(latency=0, start_delay=0, duration=0) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        with record_blocking_calls() as called:
            for call in CALLS[name]:
                await call(session)
    assert [] == called


# --- small steps ---------------------------------------------------------------------------------

# A limit on work, not on time, so that the load of the machine does not matter. Python executes a
# line of a tight loop in about 25 ns (`for number in range(20_000): count += number` takes 1 ms),
# so 200 000 lines correspond to 5 ms of CPU time. Most lines take longer because they call
# functions in C; the scene "turns" of the benchmark measures the milliseconds. A method that did
# all its work in one iteration of the event loop would execute 2 to 18 times as many lines.
MOST_LINES = 200_000
MANY = 10_000


async def respond_with_sessions(request: Request) -> Response:
    """Respond like a server with many sessions."""
    if request.target == "session":
        return LIST_RESPONSE
    return data(session_object(session_id(request)))


IDS = [f"id{number}" for number in range(MANY)]
LIST_RESPONSE = data([session_object(key) for key in IDS])


async def read_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(iter(IDS[:2000])) as results:
        async for _ in results:
            pass


async def wait_in_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.wait(IDS[:4000], "Running") as results:
        async for _ in results:
            pass


LARGE: dict[str, Call] = {
    "fetch": lambda session: session.fetch(),
    "info": lambda session: session.info(IDS[:2000]),
    "info, one id": lambda session: session.info(["a"] * MANY),
    "info, no ids": lambda session: session.info(["/"] * MANY),
    "destroy": lambda session: session.destroy(IDS[:200]),
    "wait": lambda session: session.wait(IDS, "Running"),
    "stream": read_a_stream,
    "stream.wait": wait_in_a_stream,
}


@contextmanager
def disable_garbage_collector() -> Generator[None]:
    """Disable the garbage collector, so that finalizers of other tests' objects are not counted."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def count_lines() -> Generator[Callable[[], int]]:
    """Count the lines of Python that this thread executes."""
    lines = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
        return trace

    # Coverage traces with the same function of the interpreter.
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: lines
    finally:
        sys.settrace(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("anyio_backend", PLAIN, indirect=True)
async def test_method_executes_few_lines_per_iteration(name: str) -> None:
    session, _ = session_on(respond_with_sessions, concurrency=4)
    counts: list[int] = []
    async with session, anyio.create_task_group() as group:
        with disable_garbage_collector(), count_lines() as count:
            group.start_soon(record_iterations, counts, count)
            await checkpoint()
            await LARGE[name](session)
            await checkpoint()
        group.cancel_scope.cancel()
    assert counts[-1] > MOST_LINES  # so the next line would fail if all ran in one iteration
    assert max(later - earlier for earlier, later in pairwise(counts)) <= MOST_LINES
