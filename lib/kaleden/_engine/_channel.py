"""Hands what tasks find to the block of an ``async with``, one at a time."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, Self, TypeAlias, TypeVar, final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kaleden._engine._tasks import open_task_group

T = TypeVar("T")

SendItem: TypeAlias = Callable[[T], Awaitable[None]]

_SLICE: Final = 0.001
"""Seconds for which a block may take what is at hand, before others have their turn."""


@final
class Channel(Generic[T]):
    """What is delivered to a block, by any number of tasks and for any number of them.

    Nothing is buffered: a delivery waits until it is taken.
    """

    __slots__ = ("_closed", "_ended", "_items", "_slice_ends", "_waiting")

    def __init__(self) -> None:
        self._items: dict[anyio.Event, T] = {}
        self._waiting: dict[anyio.Event, None] = {}
        self._slice_ends = 0.0
        self._ended = False
        self._closed = False

    def __len__(self) -> int:
        """Count what waits to be taken."""
        return len(self._items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next item; at the end there is none.

        Raises:
            anyio.ClosedResourceError: the block was left.

        Cancellation:
            No item is lost.
        """
        await self._checkpoint()
        while not self._items:
            if self._closed:
                raise anyio.ClosedResourceError

            if self._ended:
                raise StopAsyncIteration

            await self._wait()

        return self._take()

    def receive_nowait(self) -> list[T]:
        """Take what waits to be taken."""
        return [self._take() for _ in range(len(self._items))]

    async def send(self, item: T) -> None:
        """Give *item* to the block, and wait until it is taken.

        Cancellation:
            It is given, or it is not.
        """
        taken = anyio.Event()
        self._items[taken] = item
        self._wake()
        try:
            await taken.wait()
        except BaseException:
            self._items.pop(taken, None)
            raise

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._wake_all()

    def close(self) -> None:
        """Say that the block was left."""
        self._closed = True
        self._items.clear()
        self._wake_all()

    def _take(self) -> T:
        taken = next(iter(self._items))
        taken.set()
        return self._items.pop(taken)

    def _wake(self) -> None:
        """Wake who has waited longest."""
        for turn in self._waiting:
            turn.set()
            del self._waiting[turn]
            return

    def _wake_all(self) -> None:
        while self._waiting:
            self._wake()

    async def _wait(self) -> None:
        turn = anyio.Event()
        self._waiting[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                # What this was woken for is another's now.
                self._wake()
            self._waiting.pop(turn, None)
            raise

        self._slice_ends = time.monotonic() + _SLICE

    async def _checkpoint(self) -> None:
        """Pass a checkpoint; let others have their turn, unless there was one just now."""
        if time.monotonic() < self._slice_ends:
            await checkpoint_if_cancelled()
        else:
            await checkpoint()
            self._slice_ends = time.monotonic() + _SLICE


@asynccontextmanager
async def open_channel(
    produce: Callable[[SendItem[T]], Awaitable[None]],
) -> AsyncGenerator[Channel[T]]:
    """Run *produce* beside the block, which takes what is delivered.

    The end comes when *produce* ends. Leaving the block early cancels *produce*; an error of either
    comes out as itself.
    """
    handoff = Channel[T]()
    strays: list[BaseException] = []

    async def run() -> None:
        try:
            await produce(handoff.send)
        except anyio.get_cancelled_exc_class() as stray:
            if not group.cancel_scope.cancel_called:
                strays.append(stray)
            raise
        # Not if it failed: the block is cancelled then, and must not take this for the end.
        handoff.end()

    try:
        async with open_task_group() as group:
            group.start_soon(run)
            yield handoff
            group.cancel_scope.cancel()
    finally:
        handoff.close()

    if strays:
        # Nobody cancelled the block: what *produce* awaits was cancelled.
        raise strays[0]
