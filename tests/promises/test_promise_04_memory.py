"""A stream takes memory for what is in flight, and not for what went by or is to come."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from support import PLAIN_BACKENDS, described, session_on

FEW, MANY = 400, 4_000


async def most_held(count: int) -> int:
    """Bytes at the worst moment, garbage that waits for its collection apart."""
    most = taken = 0
    gc.collect()
    gc.freeze()
    session, transport = session_on(described, concurrency=4)
    tracemalloc.start()
    async with session, session.stream.info(f"id{number}" for number in range(count)) as results:
        async for _ in results:
            transport.requests.clear()
            taken += 1
            if taken % (count // 8) == 0:
                gc.collect()
                most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    gc.unfreeze()
    assert count == taken
    return most


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_ten_times_as_many_ids_take_no_more_memory(
    anyio_backend: Any,
) -> None:
    await most_held(200)
    # A constant besides, as much as two replies: an allocator's own.
    assert await most_held(MANY) < await most_held(FEW) * 1.1 + 20_000


async def peak(count: int) -> int:
    """Bytes at the worst moment, without a garbage collector."""
    session, transport = session_on(described, concurrency=4)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with (
            session,
            session.stream.info(f"id{number}" for number in range(count)) as results,
        ):
            async for _ in results:
                transport.requests.clear()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_what_went_by_waits_for_no_garbage_collector(anyio_backend: Any) -> None:
    await peak(200)
    assert await peak(MANY) < await peak(FEW) * 1.1 + 20_000
