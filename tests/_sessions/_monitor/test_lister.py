"""One list for everybody: who shares it, who has to ask anew, and what a failure costs whom."""

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
from kaleden._sessions._monitor._lister import SharedList, Snapshot
from kaleden._wire import Request, Response
from support import FakeTransport, data, session_object, text
from virtual_time import in_virtual_time

ONE = data([session_object("a")])
BROKEN = text("something broke", 500)
BUSY = text("busy", 503)

Answer = Callable[[int], Response]


@asynccontextmanager
async def open_lister(
    answer: Answer = lambda _: ONE, retry: RetryPolicy | None = None, kind: str | None = None
) -> AsyncIterator[tuple[SharedList, FakeTransport]]:
    """A lister, and a server that takes a second for each list; *answer* is given its number."""

    async def reply(_: Request) -> Response:
        number = len(transport.requests)
        await anyio.sleep(1)
        return answer(number)

    engine = Engine(Limiter(4), transport := FakeTransport(reply), retry)
    yield SharedList(engine, Limits(), kind), transport
    await engine.aclose()


class Asker:
    """Asks for a list that began now or later."""

    def __init__(self, lister: SharedList) -> None:
        self.lister = lister
        self.got: Snapshot | RequestError | None = None
        self.at = 0.0

    async def __call__(self) -> None:
        try:
            self.got = await self.lister.since(anyio.current_time())
        except RequestError as error:
            self.got = error
        self.at = anyio.current_time()


@in_virtual_time
async def test_concurrent_callers_share_a_request() -> None:
    async with open_lister() as (lister, transport):
        askers = [Asker(lister) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for asker in askers:
                group.start_soon(asker)
        assert [1, 1, 1] == [asker.at for asker in askers]
        first = askers[0].got
        assert isinstance(first, Snapshot)
        assert all(asker.got is first for asker in askers)
        assert (0, ["a"], 0) == (first.began, list(first.sessions), first.unreadable)
        assert 1 == len(transport.requests)
        # What is fresh enough is not asked for.
        assert first is await lister.since(0)
        assert 1 == len(transport.requests)


@pytest.mark.parametrize("broken", [False, True])
@in_virtual_time
async def test_later_caller_shares_neither_the_list_nor_its_failure(broken: bool) -> None:
    async with open_lister(lambda n: BROKEN if broken and n == 1 else ONE) as (lister, transport):
        early, late, later = Asker(lister), Asker(lister), Asker(lister)
        async with anyio.create_task_group() as group:
            group.start_soon(early)
            await anyio.sleep(0.5)
            group.start_soon(late)
            await anyio.sleep(0.25)
            group.start_soon(later)
        assert (1, 2, 2) == (early.at, late.at, later.at)
        assert isinstance(early.got, RequestError if broken else Snapshot)
        assert isinstance(late.got, Snapshot)
        assert late.got is later.got
        assert 1 == late.got.began
        assert 2 == len(transport.requests)


@in_virtual_time
async def test_failure_is_raised_in_every_caller_that_shares_the_request() -> None:
    async with open_lister(lambda n: BROKEN if n == 1 else ONE) as (lister, transport):
        askers = [Asker(lister) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for asker in askers:
                group.start_soon(asker)
        for asker in askers:
            assert isinstance(asker.got, RequestError)
            assert FailureKind.SERVER_ERROR is asker.got.failure.kind
        # Each may add notes to its own.
        assert 3 == len({id(asker.got) for asker in askers})
        assert 1 == len(transport.requests)
        assert ["a"] == list((await lister.since(anyio.current_time())).sessions)


@in_virtual_time
async def test_another_caller_sends_the_request_if_the_first_is_cancelled() -> None:
    async with open_lister() as (lister, transport):
        first, second = Asker(lister), Asker(lister)
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as doomed:
                    doomed.start_soon(first)
                    await checkpoint()
                    group.start_soon(second)
                    await anyio.sleep_forever()
        assert first.got is None
        assert isinstance(second.got, Snapshot)
        assert (0.5, 1.5) == (second.got.began, second.at)
        assert 2 == len(transport.requests)


@in_virtual_time
async def test_since_with_retry_retries_transient_failures() -> None:
    policy = RetryPolicy(attempts=4, base=1, seed=1)
    async with open_lister(lambda n: BUSY if n < 4 else ONE, policy) as (lister, transport):
        snapshot = await lister.since_with_retry(0)
        assert ["a"] == list(snapshot.sessions)
        assert 4 == len(transport.requests)


@pytest.mark.parametrize(("answer", "attempts"), [(BUSY, 4), (BROKEN, 1)], ids=["busy", "broken"])
@in_virtual_time
async def test_since_with_retry_raises_the_last_failure(answer: Response, attempts: int) -> None:
    policy = RetryPolicy(attempts=4, base=1, seed=1)
    async with open_lister(lambda _: answer, policy) as (lister, transport):
        with pytest.raises(RequestError) as caught:
            await lister.since_with_retry(0)
        assert answer.status == caught.value.failure.status
        assert attempts == len(transport.requests)


@in_virtual_time
async def test_elements_without_id_are_counted_and_applications_use_their_own_id() -> None:
    app = session_object("desk", appid="app", type="desktop-app")
    listing = data([session_object("desk"), app, {"type": "headless"}, session_object(""), 5])
    async with open_lister(lambda _: listing, kind="desktop-app") as (lister, transport):
        snapshot = await lister.since(0)
    assert (["desk", "app"], 3) == (list(snapshot.sessions), snapshot.unreadable)
    assert transport.targets == ["session?type=desktop-app"]
