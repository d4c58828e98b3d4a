"""Admission is bounded, in order, and loses no place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden import GateStatistics
from kaleden._gate import Gate


@asynccontextmanager
async def place(gate: Gate) -> AsyncIterator[None]:
    """A place at the gate, as whoever sends takes it."""
    holder = object()
    if not gate.take_nowait(holder):
        await gate.take(holder)
    try:
        yield
    finally:
        gate.give_back(holder)


async def test_the_gate_shows_its_state() -> None:
    gate = Gate(1)
    assert "<Gate 0/1 in flight, 0 waiting>" == repr(gate)

    async def wait() -> None:
        async with place(gate):
            pass

    async with anyio.create_task_group() as group, place(gate):
        group.start_soon(wait)
        while not gate.statistics().waiting:
            await checkpoint()
        assert GateStatistics(1, 1, 1) == gate.statistics()
        assert "<Gate 1/1 in flight, 1 waiting>" == repr(gate)
    assert GateStatistics(1, 0, 0) == gate.statistics()


async def test_turns_are_given_in_the_order_of_asking() -> None:
    gate = Gate(1)
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
    gate = Gate(2)
    with pytest.raises(ValueError, match="mine"):
        async with place(gate):
            raise ValueError("mine")
    with anyio.CancelScope() as scope:
        async with place(gate):
            scope.cancel()
            await checkpoint()
    assert GateStatistics(2, 0, 0) == gate.statistics()


async def test_a_cancelled_waiter_takes_no_place() -> None:
    gate = Gate(1)

    async def wait() -> None:
        async with place(gate):
            raise AssertionError

    async with place(gate):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            while not gate.statistics().waiting:
                await checkpoint()
            group.cancel_scope.cancel()
        assert GateStatistics(1, 1, 0) == gate.statistics()
    async with place(gate):
        pass
