"""A stream needs memory for requests in flight only, not for past or future ones."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from support import PLAIN_BACKENDS, described, session_on

FEW, MANY = 400, 4_000


async def measure_live_memory(count: int) -> int:
    """Return the largest number of live bytes during a stream, without uncollected garbage."""
    max_bytes = received = 0
    gc.collect()
    gc.freeze()
    session, transport = session_on(described, concurrency=4)
    tracemalloc.start()
    async with session, session.stream.info(f"id{number}" for number in range(count)) as results:
        async for _ in results:
            transport.requests.clear()
            received += 1
            if received % (count // 8) == 0:
                gc.collect()
                max_bytes = max(max_bytes, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    gc.unfreeze()
    assert count == received
    return max_bytes


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_memory_does_not_grow_with_number_of_ids(
    anyio_backend: Any,
) -> None:
    await measure_live_memory(200)
    # The constant, as large as two responses, is for the allocator.
    assert await measure_live_memory(MANY) < await measure_live_memory(FEW) * 1.1 + 20_000


async def measure_peak_memory(count: int) -> int:
    """Return the peak memory of a stream in bytes, with the garbage collector off."""
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
async def test_memory_is_freed_without_garbage_collector(anyio_backend: Any) -> None:
    await measure_peak_memory(200)
    assert await measure_peak_memory(MANY) < await measure_peak_memory(FEW) * 1.1 + 20_000
