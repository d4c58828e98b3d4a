"""Time-outs cancel each request at its own deadline, whatever else is in flight."""

from __future__ import annotations

import math

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kaleden import AsyncSession, Failure, FailureKind
from kaleden._engine._timeouts import SharedTimeout, TimeoutMonitor
from kaleden._wire import Request, Response
from support import described, session_id, session_on, stalled
from virtual_time import in_virtual_time

REQUEST = Request("GET", "session/abc")
RESPONSE = Response(200)


def ids(count: int) -> list[str]:
    return [f"id{number}" for number in range(count)]


async def respond_at_once(_: Request) -> Response:
    return RESPONSE


async def respond_after_a_second(_: Request) -> Response:
    await anyio.sleep(1)
    return RESPONSE


def get_kind_and_elapsed(outcome: object) -> tuple[FailureKind, float]:
    assert isinstance(outcome, Failure)
    return outcome.kind, outcome.elapsed


@pytest.mark.parametrize("count", [1, 2, 5])
@in_virtual_time
async def test_every_attempt_ends_at_its_own_deadline(count: int) -> None:
    session, _ = session_on(stalled, timeout=30, concurrency=5)
    async with session:
        outcomes = await session.info(ids(count))
        assert 30 == anyio.current_time()
    assert [(FailureKind.TIMED_OUT, 30)] * count == [
        get_kind_and_elapsed(outcome) for outcome in outcomes
    ]


@in_virtual_time
async def test_deadline_of_an_attempt_counts_from_its_own_start() -> None:
    started: dict[str, float] = {}
    ended: dict[str, float] = {}

    async def reply(request: Request) -> Response:
        key = session_id(request)
        started[key] = anyio.current_time()
        try:
            if key in {"id0", "id1"}:
                await anyio.sleep(float(key[2:]) + 1)
                return await described(request)
            return await stalled(request)
        finally:
            ended[key] = anyio.current_time()

    session, _ = session_on(reply, timeout=10, concurrency=2)
    async with session:
        outcomes = await session.info(ids(6))
    assert {"id0": 0, "id1": 0, "id2": 1, "id3": 2, "id4": 11, "id5": 12} == started
    assert {key: time + 10 for key, time in started.items() if key > "id1"} == {
        key: time for key, time in ended.items() if key > "id1"
    }
    assert ["id0", "id1"] == list(outcomes.successes)


@in_virtual_time
async def test_attempt_after_an_idle_time_has_its_full_timeout() -> None:
    session, transport = session_on(described, timeout=10, concurrency=2)
    async with session, session.stream.info(ids(20)) as results:
        await anext(results)
        await anyio.sleep(1000)
        transport.reply = stalled
        outcomes = [outcome async for outcome in results]
    assert {10} == {outcome.elapsed for outcome in outcomes if not outcome.ok}


@in_virtual_time
async def test_response_at_the_deadline_does_not_cancel_the_next_request() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(10)
        return await described(request)

    session, _ = session_on(reply, timeout=10, concurrency=3)
    async with session:
        outcomes = await session.info(ids(30))
    kinds = {FailureKind.TIMED_OUT}
    assert kinds >= set(outcomes.counts())
    assert {10} == {outcome.elapsed for outcome in outcomes}


async def test_timeout_cancelled_too_late_returns_its_response_and_is_reusable() -> None:
    monitor = TimeoutMonitor()
    with monitor.new_timeout() as timer:

        async def respond_despite_cancellation(_: Request) -> Response:
            timer.cancel()
            return RESPONSE

        for _ in range(3):
            assert RESPONSE is await timer.run(respond_despite_cancellation, REQUEST, 0)
            await checkpoint()
            assert RESPONSE is await timer.run(respond_at_once, REQUEST, math.inf)


async def test_cancelled_timeout_is_reusable() -> None:
    async def send_requests(timer: SharedTimeout) -> None:
        with timer:
            for _ in range(3):
                assert None is await timer.run(stalled, REQUEST, anyio.current_time())
                assert RESPONSE is await timer.run(respond_at_once, REQUEST, math.inf)
                await checkpoint()

    monitor = TimeoutMonitor()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(send_requests, monitor.new_timeout())
        await monitor.run()


@in_virtual_time
async def test_monitor_enforces_deadlines_of_different_lengths() -> None:
    timed_out: list[float] = []

    async def send_requests(timer: SharedTimeout, *lengths: float) -> None:
        with timer:
            for length in lengths:
                due = anyio.current_time() + length
                assert None is await timer.run(stalled, REQUEST, due)
                assert due == anyio.current_time()
                timed_out.append(due)

    monitor = TimeoutMonitor()
    async with anyio.create_task_group() as group:
        group.start_soon(send_requests, monitor.new_timeout(), 10, 1, 5)
        group.start_soon(send_requests, monitor.new_timeout(), 3, 3)
        group.start_soon(send_requests, monitor.new_timeout(), 60)
        await monitor.run()
    assert [3, 6, 10, 11, 16, 60] == timed_out
    assert math.inf == monitor.wakes


@in_virtual_time
async def test_monitor_has_no_deadline_without_requests_in_flight() -> None:
    monitor = TimeoutMonitor()

    async def send_requests(timer: SharedTimeout) -> None:
        with timer:
            assert RESPONSE is await timer.run(respond_after_a_second, REQUEST, 5)
            await anyio.sleep(100)
            assert math.inf == monitor.wakes

    async with anyio.create_task_group() as group:
        group.start_soon(send_requests, monitor.new_timeout())
        await monitor.run()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_outer_cancellation_is_not_taken_for_a_timeout(is_cancelled: bool) -> None:
    continued = False

    async def send_requests(timer: SharedTimeout) -> None:
        nonlocal continued
        with timer:
            await timer.run(stalled, REQUEST, math.inf)
            continued = True

    async with anyio.create_task_group() as group:
        timer = TimeoutMonitor().new_timeout()
        group.start_soon(send_requests, timer)
        for _ in range(5):
            await checkpoint()
        if is_cancelled:
            timer.cancel()
        group.cancel_scope.cancel()
    assert not continued


async def test_error_of_a_cancelled_transport_is_raised() -> None:
    monitor = TimeoutMonitor()

    async def raise_when_cancelled(_: Request) -> Response:
        timer.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError("mine")

    with monitor.new_timeout() as timer:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await timer.run(raise_when_cancelled, REQUEST, math.inf)
        assert RESPONSE is await timer.run(respond_at_once, REQUEST, math.inf)
        await checkpoint()


async def test_leaving_the_session_cancels_both_kinds_of_timeout() -> None:
    session, transport = session_on(stalled, concurrency=8)
    kinds: list[FailureKind] = []

    async def read_info(session: AsyncSession, count: int) -> None:
        outcomes = await session.info(ids(count))
        kinds.extend(outcomes.counts().elements())

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(read_info, session, 1)
            group.start_soon(read_info, session, 3)
            while transport.in_flight < 4:
                await checkpoint()
        assert 0 == transport.in_flight
    assert [FailureKind.CONNECTION_LOST] * 4 == kinds
