"""All tasks of an asyncio loop cancelled at once, as at the end of `asyncio.run`: none is lost.

That is native cancellation of kaleden's own tasks, which no shield holds off.
"""

from __future__ import annotations

import asyncio
import gc

import pytest
from anyio.lowlevel import checkpoint

from kaleden import AsyncSession, Scope
from kaleden._wire import Request, Response
from support import FakeTransport, data, described, launch_name, session_id, session_object, text

IMAGE = "images.canfar.net/skaha/astroml:latest"


class FakeServer:
    """Has made a session before the first thing can go wrong with its create."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    async def send(self, request: Request) -> Response:
        if request.method == "POST":
            key = f"id{len(self.names)}"
            self.names[key] = launch_name(request)
            reply = text(key)
        elif request.method == "DELETE":
            self.names.pop(session_id(request), None)
            reply = text("")
        else:
            listed = [session_object(key, name=name) for key, name in self.names.items()]
            reply = data(listed)
        for _ in range(3):
            await checkpoint()
        return reply


# asyncio does not begin a task that is cancelled before its first step, and says so.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("steps", range(24))
def test_no_session_survives_its_scope_when_all_tasks_are_cancelled(
    steps: int, concurrency: int
) -> None:
    server = FakeServer()
    scopes: list[Scope] = []

    async def own() -> None:
        # A clean-up that waited in vain would take all of its time.
        async with (
            AsyncSession(transport=server, concurrency=concurrency, retry=None) as session,
            session.scope(grace=600) as scope,
        ):
            scopes.append(scope)
            await scope.create("fits", IMAGE, replicas=6)
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
    gc.collect()  # Else the warning may come in another test, which does not ignore it.
    assert {} == server.names
    assert all(scope.error is None for scope in scopes)


async def given_up(request: Request) -> Response:
    """Answer as a transport of which one request awaits what somebody cancels."""
    if session_id(request) == "id3":
        raise asyncio.CancelledError

    return await described(request)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_call_never_ends_well_if_what_it_awaits_was_cancelled(concurrency: int) -> None:
    """Neither with outcomes missing, nor by leaving a block as if that had ended."""
    ids = [f"id{number}" for number in range(8)]

    async def main() -> None:
        async with AsyncSession(
            transport=FakeTransport(given_up), concurrency=concurrency, retry=None
        ) as session:
            with pytest.raises(asyncio.CancelledError):
                await session.info(ids)
            with pytest.raises(asyncio.CancelledError):
                async with session.stream.info(ids) as results:
                    assert len(ids) > len([outcome async for outcome in results])
            assert 0 == session.statistics().limiter.in_flight

    asyncio.run(main())
