"""Handing what a task finds to the block of an ``async with``."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden._handoff import Deliver, open_handoff


async def count(deliver: Deliver[int]) -> None:
    for number in range(3):
        await deliver(number)


async def test_the_block_gets_all_and_then_the_end() -> None:
    async with open_handoff(count) as receive:
        assert [0, 1, 2] == [number async for number in receive]


async def test_nothing_is_made_before_it_is_taken() -> None:
    made: list[int] = []

    async def produce(deliver: Deliver[int]) -> None:
        for number in range(10):
            made.append(number)
            await deliver(number)

    async with open_handoff(produce) as receive:
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            assert list(range(number + 1)) == made
            assert number == await receive.receive()


async def test_a_producer_that_fails_is_not_taken_for_one_that_ended() -> None:
    async def fail(deliver: Deliver[int]) -> None:
        await deliver(0)
        raise ZeroDivisionError("mine")

    taken: list[int] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_handoff(fail) as receive:
            async for number in receive:
                taken.append(number)  # noqa: PERF401  # the loop is what is tested
            pytest.fail("the loop ended as if all had come")
    assert [0] == taken


async def test_an_error_of_the_block_comes_out_as_itself_and_ends_the_producer() -> None:
    ended = []

    async def produce(deliver: Deliver[int]) -> None:
        try:
            await count(deliver)
        finally:
            ended.append(True)

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_handoff(produce) as receive:
            assert 0 == await receive.receive()
            raise ZeroDivisionError("mine")
    assert [True] == ended


async def test_leaving_early_at_any_step_leaves_nothing() -> None:
    for step in range(12):
        async with open_handoff(count) as receive:
            for _ in range(step):
                await checkpoint()
            if step % 2:
                await receive.receive()
