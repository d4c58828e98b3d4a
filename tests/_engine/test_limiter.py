"""Admission is bounded, in order, and loses no place."""

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
async def place(gate: Limiter) -> AsyncIterator[None]:
    """A place at the gate, as whoever sends takes it."""
    holder = object()
    if not gate.acquire_nowait(holder):
        await gate.acquire(holder)
    try:
        yield
    finally:
        gate.release(holder)


async def test_the_gate_shows_its_state() -> None:
    gate = Limiter(1)
    assert "<Limiter 0/1 in flight, 0 waiting>" == repr(gate)

    async def wait() -> None:
        async with place(gate):
            pass

    async with anyio.create_task_group() as group, place(gate):
        group.start_soon(wait)
        while not gate.statistics().waiting:
            await checkpoint()
        assert LimiterStatistics(1, 1, 1) == gate.statistics()
        assert "<Limiter 1/1 in flight, 1 waiting>" == repr(gate)
    assert LimiterStatistics(1, 0, 0) == gate.statistics()


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_where_no_event_loop_runs_no_pause_is_told(backend: str) -> None:
    async def pause() -> Limiter:
        gate = Limiter(2)
        gate.pause(anyio.current_time() + 1000, BUSY)
        return gate

    gate = anyio.run(pause, backend=backend)
    assert LimiterStatistics(2, 0, 0, 0.0, 1) == gate.statistics()


async def test_turns_are_given_in_the_order_of_asking() -> None:
    gate = Limiter(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with place(gate):
            order.append(number)
            await checkpoint()

    async with anyio.create_task_group() as group, place(gate):
        for number in range(5):
            group.start_soon(take, number)
            while gate.statistics().waiting <= number:
                await checkpoint()
        # Nobody who comes now may pass those who wait.
        assert 5 == gate.statistics().waiting
    assert [0, 1, 2, 3, 4] == order


async def test_a_place_is_given_back_on_an_error_and_on_cancellation() -> None:
    gate = Limiter(2)
    with pytest.raises(ValueError, match="mine"):
        async with place(gate):
            raise ValueError("mine")
    with anyio.CancelScope() as scope:
        async with place(gate):
            scope.cancel()
            await checkpoint()
    assert LimiterStatistics(2, 0, 0) == gate.statistics()


async def test_a_cancelled_waiter_takes_no_place() -> None:
    gate = Limiter(1)

    async def wait() -> None:
        async with place(gate):
            raise AssertionError

    async with place(gate):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            while not gate.statistics().waiting:
                await checkpoint()
            group.cancel_scope.cancel()
        assert LimiterStatistics(1, 1, 0) == gate.statistics()
    async with place(gate):
        pass


@in_virtual_time
async def test_a_pause_refuses_those_who_wait_already_and_have_less_time_than_it_takes() -> None:
    gate = Limiter(1)
    told: dict[float, float] = {}
    began = anyio.current_time()

    async def wait(seconds: float) -> None:
        with anyio.fail_after(seconds):
            try:
                async with place(gate):
                    told[seconds] = anyio.current_time() - began
            except Paused as paused:
                assert "busy" == paused.reason.message
                told[seconds] = -paused.seconds

    async with anyio.create_task_group() as group:
        async with place(gate):
            for seconds in (30, 90, math.inf, 50):
                group.start_soon(wait, seconds)
            await anyio.wait_all_tasks_blocked()
            gate.pause(began + 40, BUSY)
            await anyio.sleep(1)
            assert {30: -40} == told
            # A longer pause refuses more of them.
            gate.pause(began + 60, BUSY)
            await anyio.sleep(1)
            assert {30: -40, 50: -59} == told
            assert LimiterStatistics(1, 1, 2, 58.0, 1) == gate.statistics()
    assert {30: -40, 50: -59, 90: 60, math.inf: 60} == told
    assert LimiterStatistics(1, 0, 0, 0.0, 1) == gate.statistics()


@in_virtual_time
async def test_whoever_was_refused_just_as_the_pause_ended_waits_on() -> None:
    gate = Limiter(1)
    came: list[float] = []

    async def wait() -> None:
        with anyio.fail_after(30):
            async with place(gate):
                came.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        async with place(gate):
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            gate.pause(anyio.current_time() + 40, BUSY)
            gate.resume()
            await anyio.wait_all_tasks_blocked()
            assert 1 == gate.statistics().waiting
    assert 1 == len(came)


@in_virtual_time
async def test_a_pause_that_grows_refuses_those_who_sit_it_out_in_their_places() -> None:
    gate = Limiter(1)
    gate.pause(anyio.current_time() + 5, BUSY)
    began = anyio.current_time()

    async def wait() -> None:
        with anyio.fail_after(10), pytest.raises(Paused):
            await gate.acquire("holder")
        assert 1 == anyio.current_time() - began

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(1)
        assert 1 == gate.statistics().waiting
        gate.pause(began + 20, BUSY)
    assert 0 == gate.statistics().in_flight
