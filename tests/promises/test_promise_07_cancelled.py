"""A cancelled operation leaks no slot and no connection, and does not delay the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import MemoryTransport
from promises.answers import serve_sessions
from promises.loops import VirtualLoop
from support import IMAGE, raw_server

IDS = [f"id{number}" for number in range(10)]


async def read_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(iter(IDS)) as results:
        async for _ in results:
            await checkpoint()


async def read_logs(session: kaleden.AsyncSession) -> None:
    async with session.follow(IDS[:2]) as lines:
        async for _ in lines:
            await checkpoint()


OPERATIONS: dict[str, Callable[[kaleden.AsyncSession], Any]] = {
    "info": lambda session: session.info(IDS),
    "fetch": lambda session: session.fetch(),
    "create": lambda session: session.create("fits", IMAGE, replicas=3),
    "destroy": lambda session: session.destroy(IDS),
    "run": lambda session: session.run("fits", IMAGE, replicas=2),
    "stream": read_stream,
    "wait": lambda session: session.wait(IDS[:3]),
    "follow": read_logs,
}


# Event-loop iterations from one trial to the next, for operations that take long.
STEPS = {"run": 151, "follow": 151}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_cancelled_operation_releases_its_slots(
    virtual: VirtualLoop, count_trials: Callable[[int], None], operation: str
) -> None:
    async def program(world: MemoryTransport) -> None:
        async with kaleden.AsyncSession(transport=world, concurrency=4) as session:
            try:
                await OPERATIONS[operation](session)
            finally:
                with anyio.CancelScope(shield=True):
                    gate = session.statistics().limiter
                    assert (0, 0) == (gate.in_flight, gate.waiting)
                    # A slot and a connection are free if this takes one service time only.
                    with anyio.fail_after(0.1):
                        await session.fetch()

    def check(world: MemoryTransport, error: BaseException | None) -> None:
        assert not isinstance(error, AssertionError), error
        assert 0 == world.in_flight

    count_trials(
        virtual.sweep(program, check=check, causes=("scope",), step=STEPS.get(operation, 17))
    )


@pytest.mark.parametrize("limit", [1, 8])
async def test_cancelled_call_leaks_no_connection(
    limit: int, count_trials: Callable[[int], None]
) -> None:
    number = 24
    async with raw_server(serve_sessions) as url:
        async with kaleden.AsyncSession(url, "token", concurrency=limit) as session:
            for steps in range(0, 5 * number, 5):
                async with anyio.create_task_group() as group:
                    group.start_soon(session.info, IDS)
                    for _ in range(steps):
                        await checkpoint()
                    group.cancel_scope.cancel()
                state = session.statistics()
                assert (0, 0) == (state.limiter.in_flight, state.limiter.waiting)
                assert state.transport is not None
                assert (0, 0) == (state.transport.in_flight, state.transport.stuck)
                assert state.transport.connections <= limit
                with anyio.fail_after(60):
                    assert (await session.info("next")).ok
    count_trials(number)
