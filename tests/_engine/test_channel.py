"""Handing what a task finds to the block of an ``async with``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden._engine import _channel
from kaleden._engine._channel import Channel, SendItem, open_channel


async def count(deliver: SendItem[int]) -> None:
    for number in range(3):
        await deliver(number)


async def test_the_block_gets_all_and_then_the_end() -> None:
    async with open_channel(count) as receive:
        assert [0, 1, 2] == [number async for number in receive]


async def test_nothing_is_made_before_it_is_taken() -> None:
    made: list[int] = []

    async def produce(deliver: SendItem[int]) -> None:
        for number in range(10):
            made.append(number)
            await deliver(number)

    async with open_channel(produce) as receive:
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            assert list(range(number + 1)) == made
            assert number == await anext(receive)


async def test_a_producer_that_fails_is_not_taken_for_one_that_ended() -> None:
    async def fail(deliver: SendItem[int]) -> None:
        await deliver(0)
        raise ZeroDivisionError("mine")

    taken: list[int] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_channel(fail) as receive:
            async for number in receive:
                taken.append(number)  # noqa: PERF401  # the loop is what is tested
            pytest.fail("the loop ended as if all had come")
    assert [0] == taken


async def test_an_error_of_the_block_comes_out_as_itself_and_ends_the_producer() -> None:
    ended = []

    async def produce(deliver: SendItem[int]) -> None:
        try:
            await count(deliver)
        finally:
            ended.append(True)

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_channel(produce) as receive:
            assert 0 == await anext(receive)
            raise ZeroDivisionError("mine")
    assert [True] == ended


async def test_leaving_early_at_any_step_leaves_nothing() -> None:
    for step in range(12):
        async with open_channel(count) as receive:
            for _ in range(step):
                await checkpoint()
            if step % 2:
                await anext(receive)


async def test_many_take_what_many_give() -> None:
    """Each item goes to one of them, and the end to all."""
    taken: list[int] = []
    takers = 5

    async def produce(deliver: SendItem[int]) -> None:
        async def give(number: int) -> None:
            await deliver(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(give, number)

    async def take(handoff: AsyncIterator[int]) -> None:
        async for number in handoff:
            taken.append(number)
            await checkpoint()

    with anyio.fail_after(60):
        async with open_channel(produce) as handoff, anyio.create_task_group() as group:
            for _ in range(takers):
                group.start_soon(take, handoff)
    assert list(range(50)) == sorted(taken)


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_what_a_cancelled_taker_does_not_take_another_does(cancelled: int) -> None:
    handoff = Channel[int]()
    scopes = [anyio.CancelScope() for _ in range(3)]
    taken: list[int] = []

    async def take(number: int) -> None:
        with scopes[number]:
            taken.append(await anext(handoff))

    async def give(item: int) -> None:
        if item:
            scopes[cancelled].cancel()
        await handoff.send(item)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
            for item in range(2):
                group.start_soon(give, item)
            while len(taken) < 2:
                await checkpoint()
            group.cancel_scope.cancel()
    assert [0, 1] == sorted(taken)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_taker_that_is_cancelled_as_it_wakes_wakes_another(anyio_backend: str) -> None:
    """By asyncio's own means: a scope lets a task go on that was woken."""
    handoff = Channel[int]()
    first, second = [asyncio.ensure_future(anext(handoff)) for _ in range(2)]
    await anyio.wait_all_tasks_blocked()
    giver = asyncio.ensure_future(handoff.send(1))
    await asyncio.sleep(0)
    first.cancel()
    with anyio.fail_after(60):
        assert 1 == await second
        await giver
    assert first.cancelled()


async def test_a_delivery_that_is_cancelled_is_not_to_be_had() -> None:
    handoff = Channel[int]()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await handoff.send(1)
    assert scope.cancelled_caught
    assert [] == handoff.receive_nowait()


async def test_all_that_waits_can_be_taken_at_once() -> None:
    handoff = Channel[int]()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(handoff.send, number)
        await anyio.wait_all_tasks_blocked()
        assert 3 == len(handoff)
        assert [0, 1, 2] == sorted(handoff.receive_nowait())
    assert 0 == len(handoff)


async def test_who_waits_hears_that_the_block_was_left() -> None:
    async with anyio.create_task_group() as group:
        handoff = Channel[int]()

        async def take() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await anext(handoff)

        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        handoff.close()


@pytest.mark.parametrize(("turn", "fewest", "most"), [(-1.0, 7, 9), (math.inf, 0, 0)])
async def test_others_have_their_turn_while_much_is_at_hand(
    turn: float, fewest: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is time for that all is taken in one go, but not by whoever is cancelled."""
    monkeypatch.setattr(_channel, "_TIME_SLICE", turn)
    handoff = Channel[int]()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(handoff.send, number)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(take_turns)
        await anext(handoff)
        before = turns
        for _ in range(8):
            await anext(handoff)
        # trio lets one of two that are ready go first as it likes.
        assert fewest <= turns - before <= most
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(handoff)
        assert scope.cancelled_caught
        assert 1 == len(handoff.receive_nowait())
        group.cancel_scope.cancel()
