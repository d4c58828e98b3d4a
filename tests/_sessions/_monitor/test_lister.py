"""The shared list: which callers share a request, its failure and its cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden import FailureKind, RequestError, RetryPolicy
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._sessions._monitor._history import Snapshot
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Request, Response
from support import FakeTransport, data, session_object, text
from virtual_time import in_virtual_time

ONE = data([session_object("a")])
BROKEN = text("something broke", 500)
BUSY = text("busy", 503)

Responder = Callable[[int], Response]


@asynccontextmanager
async def open_list(
    respond: Responder = lambda _: ONE, retry: RetryPolicy | None = None, kind: str | None = None
) -> AsyncIterator[tuple[SharedList, FakeTransport]]:
    """Open a shared list on a server that takes a second for each; *respond* gets its number."""

    async def respond_late(_: Request) -> Response:
        number = len(transport.requests)
        await anyio.sleep(1)
        return respond(number)

    engine = Engine(Limiter(4), transport := FakeTransport(respond_late), retry)
    yield SharedList(engine, Limits(), kind), transport
    await engine.aclose()


class Caller:
    """Requests a list that began now or later, and keeps the result."""

    def __init__(self, sessions: SharedList) -> None:
        self.sessions = sessions
        self.result: Snapshot | RequestError | None = None
        self.at = 0.0

    async def __call__(self) -> None:
        try:
            self.result = await self.sessions.since(anyio.current_time())
        except RequestError as error:
            self.result = error
        self.at = anyio.current_time()


@in_virtual_time
async def test_concurrent_callers_share_a_request() -> None:
    async with open_list() as (sessions, transport):
        callers = [Caller(sessions) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for caller in callers:
                group.start_soon(caller)
        assert [1, 1, 1] == [caller.at for caller in callers]
        first = callers[0].result
        assert isinstance(first, Snapshot)
        assert all(caller.result is first for caller in callers)
        assert (0, ["a"], 0) == (first.began, list(first.sessions), first.unreadable)
        assert 1 == len(transport.requests)
        # A list that is recent enough is returned without a request.
        assert first is await sessions.since(0)
        assert 1 == len(transport.requests)


@pytest.mark.parametrize("broken", [False, True])
@in_virtual_time
async def test_later_caller_shares_neither_the_list_nor_its_failure(broken: bool) -> None:
    async with open_list(lambda n: BROKEN if broken and n == 1 else ONE) as (sessions, transport):
        early, late, later = Caller(sessions), Caller(sessions), Caller(sessions)
        async with anyio.create_task_group() as group:
            group.start_soon(early)
            await anyio.sleep(0.5)
            group.start_soon(late)
            await anyio.sleep(0.25)
            group.start_soon(later)
        assert (1, 2, 2) == (early.at, late.at, later.at)
        assert isinstance(early.result, RequestError if broken else Snapshot)
        assert isinstance(late.result, Snapshot)
        assert late.result is later.result
        assert 1 == late.result.began
        assert 2 == len(transport.requests)


@in_virtual_time
async def test_failure_is_raised_in_every_caller_that_shares_the_request() -> None:
    async with open_list(lambda n: BROKEN if n == 1 else ONE) as (sessions, transport):
        callers = [Caller(sessions) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for caller in callers:
                group.start_soon(caller)
        for caller in callers:
            assert isinstance(caller.result, RequestError)
            assert FailureKind.SERVER_ERROR is caller.result.failure.kind
        # Each caller has its own exception, to which it may add notes.
        assert 3 == len({id(caller.result) for caller in callers})
        assert 1 == len(transport.requests)
        assert ["a"] == list((await sessions.since(anyio.current_time())).sessions)


@in_virtual_time
async def test_another_caller_sends_the_request_if_the_first_is_cancelled() -> None:
    async with open_list() as (sessions, transport):
        first, second = Caller(sessions), Caller(sessions)
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as doomed:
                    doomed.start_soon(first)
                    await checkpoint()
                    group.start_soon(second)
                    await anyio.sleep_forever()
        assert first.result is None
        assert isinstance(second.result, Snapshot)
        assert (0.5, 1.5) == (second.result.began, second.at)
        assert 2 == len(transport.requests)


@in_virtual_time
async def test_another_caller_sends_the_request_if_the_first_is_refused_for_its_deadline() -> None:
    paused = text("busy", 503, **{"retry-after": "20"})
    async with open_list(lambda n: paused if n == 1 else ONE) as (sessions, transport):
        with pytest.raises(RequestError):
            await sessions.since(0)
        hurried, patient = Caller(sessions), Caller(sessions)
        async with anyio.create_task_group() as group:
            with anyio.fail_after(5):
                async with anyio.create_task_group() as callers:
                    callers.start_soon(hurried)
                    await checkpoint()
                    group.start_soon(patient)
        assert isinstance(hurried.result, RequestError)
        assert (1, 0) == (hurried.at, hurried.result.failure.attempts)
        assert isinstance(patient.result, Snapshot)
        assert 22 == patient.at
        assert 2 == len(transport.requests)


@in_virtual_time
async def test_since_with_retry_retries_transient_failures() -> None:
    policy = RetryPolicy(attempts=4, base=1, seed=1)
    async with open_list(lambda n: BUSY if n < 4 else ONE, policy) as (sessions, transport):
        snapshot = await sessions.since_with_retry(0)
        assert ["a"] == list(snapshot.sessions)
        assert 4 == len(transport.requests)


@pytest.mark.parametrize(("response", "attempts"), [(BUSY, 4), (BROKEN, 1)], ids=["busy", "broken"])
@in_virtual_time
async def test_since_with_retry_raises_the_last_failure(response: Response, attempts: int) -> None:
    policy = RetryPolicy(attempts=4, base=1, seed=1)
    async with open_list(lambda _: response, policy) as (sessions, transport):
        with pytest.raises(RequestError) as caught:
            await sessions.since_with_retry(0)
        assert response.status == caught.value.failure.status
        assert attempts == len(transport.requests)


@in_virtual_time
async def test_elements_without_id_are_counted_and_applications_use_their_own_id() -> None:
    app = session_object("desk", appid="app", type="desktop-app")
    listing = data([session_object("desk"), app, {"type": "headless"}, session_object(""), 5])
    async with open_list(lambda _: listing, kind="desktop-app") as (sessions, transport):
        snapshot = await sessions.since(0)
    assert (["desk", "app"], 3) == (list(snapshot.sessions), snapshot.unreadable)
    assert transport.targets == ["session?type=desktop-app"]
