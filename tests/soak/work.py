"""The operations of a soak, drawn by chance and cancelled by chance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

import kaleden

IMAGE = "skaha/astroml:latest"
AT_ONCE = 6

Operation = Callable[[kaleden.AsyncSession, random.Random], Awaitable[object]]


def some_ids(chance: random.Random) -> list[str]:
    return [f"id{chance.randrange(100)}" for _ in range(chance.randrange(1, 5))]


async def stream(session: kaleden.AsyncSession, chance: random.Random) -> None:
    enough = chance.randrange(6)
    async with session.stream.info(some_ids(chance)) as results:
        async for _ in results:
            enough -= 1
            if enough <= 0:
                return


async def launch(session: kaleden.AsyncSession, chance: random.Random) -> None:
    async with session.scope(grace=120) as scope:
        created = await scope.create("soak", IMAGE, replicas=chance.randrange(1, 3))
        if chance.random() < 0.5:
            await scope.wait(created.ids, "Running")


async def fail_in_a_scope(session: kaleden.AsyncSession, chance: random.Random) -> None:
    with suppress(ZeroDivisionError):
        async with session.scope(grace=120) as scope:
            await scope.create("soak", IMAGE)
            raise ZeroDivisionError


async def follow(session: kaleden.AsyncSession, chance: random.Random) -> None:
    async with session.follow(some_ids(chance)) as lines:
        async for _ in lines:
            return


OPERATIONS: list[tuple[Operation, float]] = [
    (lambda session, chance: session.info(some_ids(chance)), 8),
    (lambda session, chance: session.logs(some_ids(chance)), 4),
    (lambda session, chance: session.events(some_ids(chance)), 2),
    (lambda session, _: session.fetch(), 2),
    (lambda session, chance: session.renew(some_ids(chance)), 1),
    (lambda session, chance: session.destroy(some_ids(chance)), 2),
    (lambda session, chance: session.wait(some_ids(chance), "Running"), 1),
    (stream, 4),
    (launch, 2),
    (fail_in_a_scope, 1),
    (follow, 1),
]


@define
class Work:
    """So many operations, a few of them at a time.

    Args:
        session: what they are done with.
        seed: of all chance.
        patience: the most seconds until an operation is cancelled.
        native: whether asyncio's own cancellation takes part.
    """

    session: kaleden.AsyncSession
    seed: int
    patience: float
    native: bool
    _numbers: Any = field(init=False, factory=count)

    async def run(self, operations: int) -> None:
        """Do the next operations, and wait for the last."""
        left = iter(range(operations))
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._draw, left)

    async def _draw(self, left: Any) -> None:
        for _ in left:
            chance = random.Random(self.seed * 1_000_003 + next(self._numbers))
            [operation] = chance.choices(
                [each for each, _ in OPERATIONS], [weight for _, weight in OPERATIONS]
            )
            # What fails was to be expected of this server; a bug is no such error.
            with suppress(kaleden.RequestError, kaleden.ScopeError):
                await self._do(operation, chance)

    async def _do(self, operation: Operation, chance: random.Random) -> None:
        kind, seconds = chance.random(), chance.random() * self.patience
        if kind < 0.6:
            await operation(self.session, chance)
        elif kind < 0.9 or not self.native:
            with anyio.move_on_after(seconds):
                await operation(self.session, chance)
        else:
            await self._cancel_natively(operation, chance, seconds)

    async def _cancel_natively(
        self, operation: Operation, chance: random.Random, seconds: float
    ) -> None:
        async def body() -> None:
            with suppress(kaleden.RequestError, kaleden.ScopeError):
                await operation(self.session, chance)

        task = asyncio.ensure_future(body())
        await anyio.sleep(seconds)
        for _ in range(chance.randrange(1, 4)):
            task.cancel()
            await checkpoint()
        await asyncio.wait([task])
