"""The channel from producer tasks to the block of an ``async with``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden._engine import _channel
from kaleden._engine._channel import Channel, SendItem, open_channel
from support import CheckpointCounter


async def count(send: SendItem[int]) -> None:
    for number in range(3):
        await send(number)


async def test_block_receives_all_items_and_then_the_end() -> None:
    async with open_channel(count) as receive:
        assert [0, 1, 2] == [number async for number in receive]


async def test_producer_makes_an_item_only_after_the_last_was_received() -> None:
    made: list[int] = []

    async def produce(send: SendItem[int]) -> None:
        for number in range(10):
            made.append(number)
            await send(number)

    async with open_channel(produce) as receive:
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            assert list(range(number + 1)) == made
            assert number == await anext(receive)


async def test_producer_error_does_not_end_the_iteration() -> None:
    async def fail(send: SendItem[int]) -> None:
        await send(0)
        raise ZeroDivisionError("mine")

    received: list[int] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_channel(fail) as receive:
            async for number in receive:
                received.append(number)  # noqa: PERF401  # the loop is what is tested
            pytest.fail("the loop ended as if the producer had completed")
    assert [0] == received


async def test_block_error_is_raised_unchanged_and_ends_the_producer() -> None:
    ended = []

    async def produce(send: SendItem[int]) -> None:
        try:
            await count(send)
        finally:
            ended.append(True)

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_channel(produce) as receive:
            assert 0 == await anext(receive)
            raise ZeroDivisionError("mine")
    assert [True] == ended


async def test_leaving_the_block_early_at_any_step_leaves_no_task() -> None:
    for step in range(12):
        async with open_channel(count) as receive:
            for _ in range(step):
                await checkpoint()
            if step % 2:
                await anext(receive)


async def test_many_receivers_share_the_items_of_many_senders() -> None:
    """Each item goes to one receiver, and the end to all of them."""
    received: list[int] = []
    receivers = 5

    async def produce(send: SendItem[int]) -> None:
        async def send_one(number: int) -> None:
            await send(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(send_one, number)

    async def receive_items(channel: AsyncIterator[int]) -> None:
        async for number in channel:
            received.append(number)
            await checkpoint()

    with anyio.fail_after(60):
        async with open_channel(produce) as channel, anyio.create_task_group() as group:
            for _ in range(receivers):
                group.start_soon(receive_items, channel)
    assert list(range(50)) == sorted(received)


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_item_of_a_cancelled_receiver_goes_to_another(cancelled: int) -> None:
    channel = Channel[int]()
    scopes = [anyio.CancelScope() for _ in range(3)]
    received: list[int] = []

    async def receive_items(number: int) -> None:
        with scopes[number]:
            received.append(await anext(channel))

    async def send(item: int) -> None:
        if item:
            scopes[cancelled].cancel()
        await channel.send(item)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(receive_items, number)
            await anyio.wait_all_tasks_blocked()
            for item in range(2):
                group.start_soon(send, item)
            while len(received) < 2:
                await checkpoint()
            group.cancel_scope.cancel()
    assert [0, 1] == sorted(received)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_receiver_cancelled_while_waking_wakes_another(anyio_backend: str) -> None:
    """Native cancellation of asyncio: a cancel scope does not cancel a task that was woken."""
    channel = Channel[int]()
    first, second = [asyncio.ensure_future(anext(channel)) for _ in range(2)]
    await anyio.wait_all_tasks_blocked()
    sender = asyncio.ensure_future(channel.send(1))
    await asyncio.sleep(0)
    first.cancel()
    with anyio.fail_after(60):
        assert 1 == await second
        await sender
    assert first.cancelled()


async def test_cancelled_send_withdraws_its_item() -> None:
    channel = Channel[int]()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await channel.send(1)
    assert scope.cancelled_caught
    assert [] == channel.receive_nowait()


async def test_receive_nowait_returns_all_waiting_items() -> None:
    channel = Channel[int]()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(channel.send, number)
        await anyio.wait_all_tasks_blocked()
        assert 3 == len(channel)
        assert [0, 1, 2] == sorted(channel.receive_nowait())
    assert 0 == len(channel)


async def test_close_raises_in_a_waiting_receiver() -> None:
    async with anyio.create_task_group() as group:
        channel = Channel[int]()

        async def receive_items() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await anext(channel)

        group.start_soon(receive_items)
        await anyio.wait_all_tasks_blocked()
        channel.close()


@pytest.mark.parametrize(("time_slice", "fewest", "most"), [(-1.0, 7, 9), (math.inf, 0, 0)])
async def test_receiver_yields_to_other_tasks_once_in_a_time_slice(
    time_slice: float, fewest: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time slice all items are received without yielding; cancellation still works."""
    monkeypatch.setattr(_channel, "_TIME_SLICE", time_slice)
    channel = Channel[int]()
    iterations = CheckpointCounter()
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(channel.send, number)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(iterations.run)
        await anext(channel)
        before = iterations.count
        for _ in range(8):
            await anext(channel)
        # trio runs tasks that are ready in a random order.
        assert fewest <= iterations.count - before <= most
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(channel)
        assert scope.cancelled_caught
        assert 1 == len(channel.receive_nowait())
        group.cancel_scope.cancel()
