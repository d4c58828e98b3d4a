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

Deliver: TypeAlias = Callable[[T], Awaitable[None]]

_TURN: Final = 0.001
"""Seconds for which a block may take what is at hand, before others have their turn."""


@final
class Handoff(Generic[T]):
    """What is delivered to a block, by any number of tasks and for any number of them.

    Nothing is buffered: a delivery waits until it is taken.
    """

    __slots__ = ("_closed", "_ended", "_shelf", "_turn_ends", "_waiting")

    def __init__(self) -> None:
        self._shelf: dict[anyio.Event, T] = {}
        self._waiting: dict[anyio.Event, None] = {}
        self._turn_ends = 0.0
        self._ended = False
        self._closed = False

    def __len__(self) -> int:
        """Count what waits to be taken."""
        return len(self._shelf)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next item; at the end there is none.

        Raises:
            anyio.ClosedResourceError: the block was left.

        Cancellation:
            No item is lost.
        """
        await self._give_way()
        while not self._shelf:
            if self._closed:
                raise anyio.ClosedResourceError

            if self._ended:
                raise StopAsyncIteration

            await self._wait()

        return self._take()

    def at_hand(self) -> list[T]:
        """Take what waits to be taken."""
        return [self._take() for _ in range(len(self._shelf))]

    async def deliver(self, item: T) -> None:
        """Give *item* to the block, and wait until it is taken.

        Cancellation:
            It is given, or it is not.
        """
        taken = anyio.Event()
        self._shelf[taken] = item
        self._stir()
        try:
            await taken.wait()
        except BaseException:
            self._shelf.pop(taken, None)
            raise

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self._stir_all()

    def close(self) -> None:
        """Say that the block was left."""
        self._closed = True
        self._shelf.clear()
        self._stir_all()

    def _take(self) -> T:
        taken = next(iter(self._shelf))
        taken.set()
        return self._shelf.pop(taken)

    def _stir(self) -> None:
        """Wake who has waited longest."""
        for turn in self._waiting:
            turn.set()
            del self._waiting[turn]
            return

    def _stir_all(self) -> None:
        while self._waiting:
            self._stir()

    async def _wait(self) -> None:
        turn = anyio.Event()
        self._waiting[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                # What this was woken for is another's now.
                self._stir()
            self._waiting.pop(turn, None)
            raise

        self._turn_ends = time.monotonic() + _TURN

    async def _give_way(self) -> None:
        """Pass a checkpoint; let others have their turn, unless there was one just now."""
        if time.monotonic() < self._turn_ends:
            await checkpoint_if_cancelled()
        else:
            await checkpoint()
            self._turn_ends = time.monotonic() + _TURN


@asynccontextmanager
async def open_handoff(
    produce: Callable[[Deliver[T]], Awaitable[None]],
) -> AsyncGenerator[Handoff[T]]:
    """Run *produce* beside the block, which takes what is delivered.

    The end comes when *produce* ends. Leaving the block early cancels *produce*; an error of either
    comes out as itself.
    """
    handoff = Handoff[T]()
    strays: list[BaseException] = []

    async def run() -> None:
        try:
            await produce(handoff.deliver)
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
