"""After ``async with AsyncSession`` no task, thread, socket, descriptor or warning is left."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from platforms import Server, local_platform
from support import IMAGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


async def use_most_methods(session: kaleden.AsyncSession) -> None:
    """Call most methods of a client."""
    async with session.scope() as scope:
        created = await scope.create("fits", IMAGE, cmd="echo", args="done", replicas=3)
        await scope.wait(created.ids)
        async with session.follow(created) as lines:
            async for _ in lines:
                pass
    await session.info([*created.ids, "nobody", "a/b"])
    await session.fetch()


async def leave_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.info(f"id{number}" for number in range(100)) as results:
        async for _ in results:
            return


async def cancel_calls(session: kaleden.AsyncSession) -> None:
    for seconds in (0.0, 0.002, 0.005, 0.02):
        with anyio.move_on_after(seconds):
            await session.info([f"id{number}" for number in range(1_000)])


async def raise_an_error(session: kaleden.AsyncSession) -> None:
    with suppress(ZeroDivisionError):
        async with session.scope() as scope:
            await scope.create("fits", IMAGE, cmd="sleep", args="60", replicas=3)
            raise ZeroDivisionError


async def cancel_create(session: kaleden.AsyncSession) -> None:
    with anyio.move_on_after(0.01):
        await session.create("fits", IMAGE, cmd="sleep", args="60", replicas=3)


USES = [use_most_methods, leave_a_stream, cancel_calls, raise_an_error, cancel_create]


@pytest.fixture(scope="module")
def platform() -> Iterator[Server]:
    """Start a platform in another process, so that this process has the client's resources only."""
    with local_platform() as server:
        yield server


POOLED = ("Trio thread", "AnyIO worker thread")
"""The names of threads that an event loop keeps for a while, for further address look-ups."""


def count_resources() -> tuple[int, int, int]:
    """Count the tasks, the threads and the descriptors of this process."""
    threads = [each for each in threading.enumerate() if not each.name.startswith(POOLED)]
    return (
        len(anyio.get_running_tasks()),
        len(threads),
        len(os.listdir("/proc/self/fd")),
    )


@pytest.mark.parametrize("work", USES)
async def test_no_resource_is_left(
    platform: Server, work: Callable[[kaleden.AsyncSession], Awaitable[None]]
) -> None:
    # The first use of an event loop opens resources that stay open until it ends.
    async with kaleden.AsyncSession(platform.url, platform.token) as session:
        await session.fetch()
    before = count_resources()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with kaleden.AsyncSession(platform.url, platform.token) as session:
            await work(session)
        gc.collect()
    assert [] == [str(each.message) for each in warned]
    assert before == count_resources()
