"""Hands what a task finds to the block of an ``async with``, one at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kaleden._tasks import open_task_group

T = TypeVar("T")

Deliver: TypeAlias = Callable[[T], Awaitable[None]]


@asynccontextmanager
async def open_handoff(
    produce: Callable[[Deliver[T]], Awaitable[None]],
) -> AsyncGenerator[MemoryObjectReceiveStream[T]]:
    """Run *produce* beside the block, which takes what is delivered.

    Nothing is buffered: a delivery waits until it is taken. The stream ends when *produce* does.
    Leaving the block early cancels *produce*; an error of either comes out as itself.
    """
    send, receive = anyio.create_memory_object_stream[T](0)

    async def run() -> None:
        await produce(send.send)
        # Not if it failed: the block is cancelled then, and must not take this for the end.
        send.close()

    # The ends are closed after the group is cancelled: a delivery that found its consumer gone
    # would fail.
    with send, receive:
        async with open_task_group() as group:
            group.start_soon(run)
            yield receive
            group.cancel_scope.cancel()
