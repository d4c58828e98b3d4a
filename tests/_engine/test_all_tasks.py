"""No session is lost when all tasks of an event loop are cancelled, as `asyncio.run` does.

That is native cancellation of the tasks of this library, which passes through every shield.
"""

from __future__ import annotations

import asyncio
import gc

import pytest
from anyio.lowlevel import checkpoint

from kaleden import AsyncSession, Scope
from kaleden._wire import Request, Response
from support import (
    FULL_IMAGE,
    FakeTransport,
    data,
    described,
    launch_name,
    session_id,
    session_object,
    text,
)


class FakeServer:
    """Makes the session of a create before the request can be cancelled."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    async def send(self, request: Request) -> Response:
        if request.method == "POST":
            key = f"id{len(self.names)}"
            self.names[key] = launch_name(request)
            response = text(key)
        elif request.method == "DELETE":
            self.names.pop(session_id(request), None)
            response = text("")
        else:
            listed = [session_object(key, name=name) for key, name in self.names.items()]
            response = data(listed)
        for _ in range(3):
            await checkpoint()
        return response


# asyncio never starts a task that is cancelled before its first step, and warns of it.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("steps", range(24))
def test_cancelling_all_tasks_leaves_no_session_of_a_scope(steps: int, concurrency: int) -> None:
    server = FakeServer()
    scopes: list[Scope] = []

    async def own() -> None:
        # A clean-up that waits for nothing would take all of its grace period.
        async with (
            AsyncSession(transport=server, concurrency=concurrency, retry=None) as session,
            session.scope(grace=600) as scope,
        ):
            scopes.append(scope)
            await scope.create("fits", FULL_IMAGE, replicas=6)
            await asyncio.Event().wait()

    async def main() -> None:
        owner = asyncio.create_task(own())
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner

    asyncio.run(main())
    gc.collect()  # Otherwise the warning may appear in a test that does not ignore it.
    assert {} == server.names
    assert all(scope.error is None for scope in scopes)


async def cancel_one_request(request: Request) -> Response:
    """Reply like a transport in which something that one request awaits is cancelled."""
    if session_id(request) == "id3":
        raise asyncio.CancelledError

    return await described(request)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_call_is_cancelled_if_something_that_it_awaits_was_cancelled(concurrency: int) -> None:
    """It neither returns with outcomes missing, nor leaves a block as if that had completed."""
    ids = [f"id{number}" for number in range(8)]

    async def main() -> None:
        async with AsyncSession(
            transport=FakeTransport(cancel_one_request), concurrency=concurrency, retry=None
        ) as session:
            with pytest.raises(asyncio.CancelledError):
                await session.info(ids)
            with pytest.raises(asyncio.CancelledError):
                async with session.stream.info(ids) as results:
                    assert len(ids) > len([outcome async for outcome in results])
            assert 0 == session.statistics().limiter.in_flight

    asyncio.run(main())
