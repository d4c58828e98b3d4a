"""The operations of a soak, which are drawn and cancelled at random."""

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


def draw_ids(rng: random.Random) -> list[str]:
    return [f"id{rng.randrange(100)}" for _ in range(rng.randrange(1, 5))]


async def stream(session: kaleden.AsyncSession, rng: random.Random) -> None:
    enough = rng.randrange(6)
    async with session.stream.info(draw_ids(rng)) as results:
        async for _ in results:
            enough -= 1
            if enough <= 0:
                return


async def launch(session: kaleden.AsyncSession, rng: random.Random) -> None:
    async with session.scope(grace=120) as scope:
        created = await scope.create("soak", IMAGE, replicas=rng.randrange(1, 3))
        if rng.random() < 0.5:
            await scope.wait(created.ids, "Running")


async def fail_in_a_scope(session: kaleden.AsyncSession, rng: random.Random) -> None:
    with suppress(ZeroDivisionError):
        async with session.scope(grace=120) as scope:
            await scope.create("soak", IMAGE)
            raise ZeroDivisionError


async def follow(session: kaleden.AsyncSession, rng: random.Random) -> None:
    async with session.follow(draw_ids(rng)) as lines:
        async for _ in lines:
            return


OPERATIONS: list[tuple[Operation, float]] = [
    (lambda session, rng: session.info(draw_ids(rng)), 8),
    (lambda session, rng: session.logs(draw_ids(rng)), 4),
    (lambda session, rng: session.events(draw_ids(rng)), 2),
    (lambda session, _: session.fetch(), 2),
    (lambda session, rng: session.renew(draw_ids(rng)), 1),
    (lambda session, rng: session.destroy(draw_ids(rng)), 2),
    (lambda session, rng: session.wait(draw_ids(rng), "Running"), 1),
    (stream, 4),
    (launch, 2),
    (fail_in_a_scope, 1),
    (follow, 1),
]


@define
class Work:
    """Random operations, with several of them running at a time.

    Args:
        session: the session to run them on.
        seed: the seed for all random choices.
        patience: the largest number of seconds until an operation is cancelled.
        native: whether to use asyncio's own cancellation too.
    """

    session: kaleden.AsyncSession
    seed: int
    patience: float
    native: bool
    _numbers: Any = field(init=False, factory=count)

    async def run(self, operations: int) -> None:
        """Run the next operations, and wait until all have ended."""
        remaining = iter(range(operations))
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._run_drawn, remaining)

    async def _run_drawn(self, remaining: Any) -> None:
        for _ in remaining:
            rng = random.Random(self.seed * 1_000_003 + next(self._numbers))
            [operation] = rng.choices(
                [each for each, _ in OPERATIONS], [weight for _, weight in OPERATIONS]
            )
            # These errors are expected from this server. A bug raises another error.
            with suppress(kaleden.RequestError, kaleden.ScopeError):
                await self._run_operation(operation, rng)

    async def _run_operation(self, operation: Operation, rng: random.Random) -> None:
        kind, seconds = rng.random(), rng.random() * self.patience
        if kind < 0.6:
            await operation(self.session, rng)
        elif kind < 0.9 or not self.native:
            with anyio.move_on_after(seconds):
                await operation(self.session, rng)
        else:
            await self._cancel_natively(operation, rng, seconds)

    async def _cancel_natively(
        self, operation: Operation, rng: random.Random, seconds: float
    ) -> None:
        async def body() -> None:
            with suppress(kaleden.RequestError, kaleden.ScopeError):
                await operation(self.session, rng)

        task = asyncio.ensure_future(body())
        await anyio.sleep(seconds)
        for _ in range(rng.randrange(1, 4)):
            task.cancel()
            await checkpoint()
        await asyncio.wait([task])
