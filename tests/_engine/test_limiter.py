"""The limiter: bounded, FIFO, and without lost slots."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden import Failure, FailureKind, LimiterStatistics
from kaleden._engine._limiter import Limiter, Paused
from support import PLAIN_BACKENDS
from virtual_time import in_virtual_time

BUSY = Failure("any", FailureKind.UNAVAILABLE, "busy", 503, 60.0, sent=True)


@asynccontextmanager
async def hold_slot(limiter: Limiter) -> AsyncIterator[None]:
    """Hold a slot of the limiter, as a request does."""
    holder = object()
    if not limiter.acquire_nowait(holder):
        await limiter.acquire(holder)
    try:
        yield
    finally:
        limiter.release(holder)


async def test_statistics_and_repr_show_the_state() -> None:
    limiter = Limiter(1)
    assert "<Limiter 0/1 in flight, 0 waiting>" == repr(limiter)

    async def wait() -> None:
        async with hold_slot(limiter):
            pass

    async with anyio.create_task_group() as group, hold_slot(limiter):
        group.start_soon(wait)
        while not limiter.statistics().waiting:
            await checkpoint()
        assert LimiterStatistics(1, 1, 1) == limiter.statistics()
        assert "<Limiter 1/1 in flight, 1 waiting>" == repr(limiter)
    assert LimiterStatistics(1, 0, 0) == limiter.statistics()


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_statistics_without_an_event_loop_have_no_pause(backend: str) -> None:
    async def pause() -> Limiter:
        limiter = Limiter(2)
        limiter.pause(anyio.current_time() + 1000, BUSY)
        return limiter

    limiter = anyio.run(pause, backend=backend)
    assert LimiterStatistics(2, 0, 0, 0.0, 1) == limiter.statistics()


async def test_slots_are_acquired_in_fifo_order() -> None:
    limiter = Limiter(1)
    order: list[int] = []

    async def acquire(number: int) -> None:
        async with hold_slot(limiter):
            order.append(number)
            await checkpoint()

    async with anyio.create_task_group() as group, hold_slot(limiter):
        for number in range(5):
            group.start_soon(acquire, number)
            while limiter.statistics().waiting <= number:
                await checkpoint()
        # A later task must not overtake the queued ones.
        assert 5 == limiter.statistics().waiting
    assert [0, 1, 2, 3, 4] == order


async def test_slot_is_released_on_an_error_and_on_cancellation() -> None:
    limiter = Limiter(2)
    with pytest.raises(ValueError, match="mine"):
        async with hold_slot(limiter):
            raise ValueError("mine")
    with anyio.CancelScope() as scope:
        async with hold_slot(limiter):
            scope.cancel()
            await checkpoint()
    assert LimiterStatistics(2, 0, 0) == limiter.statistics()


async def test_cancelled_waiter_takes_no_slot() -> None:
    limiter = Limiter(1)

    async def wait() -> None:
        async with hold_slot(limiter):
            raise AssertionError

    async with hold_slot(limiter):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            while not limiter.statistics().waiting:
                await checkpoint()
            group.cancel_scope.cancel()
        assert LimiterStatistics(1, 1, 0) == limiter.statistics()
    async with hold_slot(limiter):
        pass


@in_virtual_time
async def test_pause_refuses_queued_tasks_with_an_earlier_deadline() -> None:
    limiter = Limiter(1)
    results: dict[float, float] = {}
    started = anyio.current_time()

    async def wait(seconds: float) -> None:
        with anyio.fail_after(seconds):
            try:
                async with hold_slot(limiter):
                    results[seconds] = anyio.current_time() - started
            except Paused as paused:
                assert "busy" == paused.reason.message
                results[seconds] = -paused.seconds

    async with anyio.create_task_group() as group:
        async with hold_slot(limiter):
            for seconds in (30, 90, math.inf, 50):
                group.start_soon(wait, seconds)
            await anyio.wait_all_tasks_blocked()
            limiter.pause(started + 40, BUSY)
            await anyio.sleep(1)
            assert {30: -40} == results
            # A longer pause refuses more tasks.
            limiter.pause(started + 60, BUSY)
            await anyio.sleep(1)
            assert {30: -40, 50: -59} == results
            assert LimiterStatistics(1, 1, 2, 58.0, 1) == limiter.statistics()
    assert {30: -40, 50: -59, 90: 60, math.inf: 60} == results
    assert LimiterStatistics(1, 0, 0, 0.0, 1) == limiter.statistics()


@in_virtual_time
async def test_task_refused_just_as_the_pause_ends_keeps_waiting() -> None:
    limiter = Limiter(1)
    acquired: list[float] = []

    async def wait() -> None:
        with anyio.fail_after(30):
            async with hold_slot(limiter):
                acquired.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        async with hold_slot(limiter):
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            limiter.pause(anyio.current_time() + 40, BUSY)
            limiter.resume()
            await anyio.wait_all_tasks_blocked()
            assert 1 == limiter.statistics().waiting
    assert 1 == len(acquired)


@in_virtual_time
async def test_extended_pause_refuses_tasks_that_hold_a_slot() -> None:
    limiter = Limiter(1)
    limiter.pause(anyio.current_time() + 5, BUSY)
    started = anyio.current_time()

    async def wait() -> None:
        with anyio.fail_after(10), pytest.raises(Paused):
            await limiter.acquire("holder")
        assert 1 == anyio.current_time() - started

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(1)
        assert 1 == limiter.statistics().waiting
        limiter.pause(started + 20, BUSY)
    assert 0 == limiter.statistics().in_flight
