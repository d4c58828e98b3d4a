"""Admission is bounded, in order, and loses no place."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden import GateStatistics
from kaleden._gate import Gate


async def test_the_gate_shows_its_state() -> None:
    gate = Gate(1)
    assert "<Gate 0/1 in flight, 0 waiting>" == repr(gate)

    async def wait() -> None:
        async with gate:
            pass

    async with anyio.create_task_group() as group, gate:
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
        async with gate:
            order.append(number)
            await checkpoint()

    async with anyio.create_task_group() as group, gate:
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
        async with gate:
            raise ValueError("mine")
    with anyio.CancelScope() as scope:
        async with gate:
            scope.cancel()
            await checkpoint()
    assert GateStatistics(2, 0, 0) == gate.statistics()


async def test_a_cancelled_waiter_takes_no_place() -> None:
    gate = Gate(1)

    async def wait() -> None:
        async with gate:
            raise AssertionError

    async with gate:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            while not gate.statistics().waiting:
                await checkpoint()
            group.cancel_scope.cancel()
        assert GateStatistics(1, 1, 0) == gate.statistics()
    async with gate:
        pass
