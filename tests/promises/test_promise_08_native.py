"""asyncio's cancellation is as safe as a cancel scope: once, repeated, or by asyncio's helpers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import MemoryTransport
from programs import Launched
from promises.answers import serve_sessions
from promises.conftest import LOOPS
from promises.loops import VIRTUAL_LOOPS, VirtualLoop
from support import IMAGE, raw_server

IDS = [f"id{number}" for number in range(100)]
ASYNCIO = [loop for loop in LOOPS if "trio" not in str(loop.id)]
ASYNCIO_VIRTUAL = [loop for loop in VIRTUAL_LOOPS if loop.backend == "asyncio"]

Work = Callable[[], Awaitable[Any]]


async def run_iterations(count: int) -> None:
    for _ in range(count):
        await checkpoint()


async def cancel_task(work: Work, steps: int, times: int) -> None:
    task = asyncio.ensure_future(work())
    await run_iterations(steps)
    for _ in range(times):
        task.cancel()
        await checkpoint()
    await asyncio.wait([task])


async def cancel_once(work: Work, steps: int) -> None:
    await cancel_task(work, steps, 1)


async def cancel_three_times(work: Work, steps: int) -> None:
    await cancel_task(work, steps, 3)


async def cancel_by_wait_for(work: Work, steps: int) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(work(), steps * 2e-4)


async def cancel_by_timeout(work: Work, steps: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(steps * 2e-4):
            await work()


async def cancel_by_task_group(work: Work, steps: int) -> None:
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(work())  # type: ignore[arg-type]
            await run_iterations(steps)
            raise RuntimeError("a sibling failed")


CAUSES = [
    cancel_once,
    cancel_three_times,
    cancel_by_wait_for,
    cancel_by_timeout,
    cancel_by_task_group,
]


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("anyio_backend", ASYNCIO, indirect=True)
async def test_native_cancellation_leaks_no_slot_and_no_connection(
    cause: Callable[[Work, int], Awaitable[None]], count_trials: Callable[[int], None]
) -> None:
    all_steps = range(0, 60, 4)
    async with (
        raw_server(serve_sessions) as url,
        kaleden.AsyncSession(url, "token", concurrency=4) as session,
    ):
        for steps in all_steps:
            await cause(lambda: session.info(IDS), steps)
            state = session.statistics()
            assert state.transport is not None
            assert (0, 0) == (state.limiter.in_flight, state.limiter.waiting)
            assert (0, 0) == (state.transport.in_flight, state.transport.stuck)
            with anyio.fail_after(60):
                assert (await session.info("next")).ok
    count_trials(len(all_steps))


@pytest.mark.parametrize("virtual", ASYNCIO_VIRTUAL, ids=str)
def test_no_session_survives_native_cancellation_of_scope(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    program = Launched(3, grace=30)
    count_trials(virtual.sweep(program, check=program.check, causes=("native", "native3"), step=5))


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.7, 1.5])
@pytest.mark.parametrize("virtual", ASYNCIO_VIRTUAL, ids=str)
def test_no_session_survives_asyncio_wait_for(virtual: VirtualLoop, seconds: float) -> None:
    async def program() -> None:
        async with MemoryTransport() as world, kaleden.AsyncSession(transport=world) as session:

            async def launch() -> None:
                async with session.scope() as scope:
                    await scope.create("fits", IMAGE, replicas=20)
                    await scope.wait()

            with suppress(TimeoutError):
                await asyncio.wait_for(launch(), seconds)
            await world.settled()
            assert [] == world.sessions()

    virtual.run(program)
