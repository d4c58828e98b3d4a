"""Requests that take too long are given up, each at its time, whoever else is on the way."""

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
REPLY = Response(200)


def ids(count: int) -> list[str]:
    return [f"id{number}" for number in range(count)]


async def at_once(_: Request) -> Response:
    return REPLY


async def after_a_second(_: Request) -> Response:
    await anyio.sleep(1)
    return REPLY


def told(outcome: object) -> tuple[FailureKind, float]:
    assert isinstance(outcome, Failure)
    return outcome.kind, outcome.elapsed


@pytest.mark.parametrize("count", [1, 2, 5])
@in_virtual_time
async def test_every_attempt_ends_at_its_own_deadline(count: int) -> None:
    session, _ = session_on(stalled, timeout=30, concurrency=5)
    async with session:
        outcomes = await session.info(ids(count))
        assert 30 == anyio.current_time()
    assert [(FailureKind.TIMED_OUT, 30)] * count == [told(outcome) for outcome in outcomes]


@in_virtual_time
async def test_attempts_that_began_at_different_times_end_at_different_times() -> None:
    began: dict[str, float] = {}
    ended: dict[str, float] = {}

    async def reply(request: Request) -> Response:
        key = session_id(request)
        began[key] = anyio.current_time()
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
    assert {"id0": 0, "id1": 0, "id2": 1, "id3": 2, "id4": 11, "id5": 12} == began
    assert {key: time + 10 for key, time in began.items() if key > "id1"} == {
        key: time for key, time in ended.items() if key > "id1"
    }
    assert ["id0", "id1"] == list(outcomes.successes)


@in_virtual_time
async def test_an_attempt_after_a_long_rest_has_all_its_time() -> None:
    session, transport = session_on(described, timeout=10, concurrency=2)
    async with session, session.stream.info(ids(20)) as results:
        await anext(results)
        await anyio.sleep(1000)
        transport.reply = stalled
        outcomes = [outcome async for outcome in results]
    assert {10} == {outcome.elapsed for outcome in outcomes if not outcome.ok}


@in_virtual_time
async def test_a_reply_in_the_last_moment_costs_the_next_request_nothing() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(10)
        return await described(request)

    session, _ = session_on(reply, timeout=10, concurrency=3)
    async with session:
        outcomes = await session.info(ids(30))
    kinds = {FailureKind.TIMED_OUT}
    assert kinds >= set(outcomes.counts())
    assert {10} == {outcome.elapsed for outcome in outcomes}


async def test_one_that_is_called_back_too_late_keeps_its_reply_and_goes_on() -> None:
    watchdog = TimeoutMonitor()
    with watchdog.new_timeout() as courier:

        async def overtaken(_: Request) -> Response:
            courier.cancel()
            return REPLY

        for _ in range(3):
            assert REPLY is await courier.run(overtaken, REQUEST, 0)
            await checkpoint()
            assert REPLY is await courier.run(at_once, REQUEST, math.inf)


async def test_one_that_is_called_back_can_carry_again() -> None:
    async def carry(courier: SharedTimeout) -> None:
        with courier:
            for _ in range(3):
                assert None is await courier.run(stalled, REQUEST, anyio.current_time())
                assert REPLY is await courier.run(at_once, REQUEST, math.inf)
                await checkpoint()

    watchdog = TimeoutMonitor()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(carry, watchdog.new_timeout())
        await watchdog.run()


@in_virtual_time
async def test_a_watchdog_keeps_deadlines_of_different_lengths() -> None:
    given_up: list[float] = []

    async def carry(courier: SharedTimeout, *lengths: float) -> None:
        with courier:
            for length in lengths:
                due = anyio.current_time() + length
                assert None is await courier.run(stalled, REQUEST, due)
                assert due == anyio.current_time()
                given_up.append(due)

    watchdog = TimeoutMonitor()
    async with anyio.create_task_group() as group:
        group.start_soon(carry, watchdog.new_timeout(), 10, 1, 5)
        group.start_soon(carry, watchdog.new_timeout(), 3, 3)
        group.start_soon(carry, watchdog.new_timeout(), 60)
        await watchdog.run()
    assert [3, 6, 10, 11, 16, 60] == given_up
    assert math.inf == watchdog.wakes


@in_virtual_time
async def test_nothing_is_due_when_nothing_is_on_its_way() -> None:
    watchdog = TimeoutMonitor()

    async def carry(courier: SharedTimeout) -> None:
        with courier:
            assert REPLY is await courier.run(after_a_second, REQUEST, 5)
            await anyio.sleep(100)
            assert math.inf == watchdog.wakes

    async with anyio.create_task_group() as group:
        group.start_soon(carry, watchdog.new_timeout())
        await watchdog.run()


@pytest.mark.parametrize("called_back", [False, True])
async def test_a_cancellation_from_outside_is_not_taken_for_a_deadline(called_back: bool) -> None:
    went_on = False

    async def carry(courier: SharedTimeout) -> None:
        nonlocal went_on
        with courier:
            await courier.run(stalled, REQUEST, math.inf)
            went_on = True

    async with anyio.create_task_group() as group:
        courier = TimeoutMonitor().new_timeout()
        group.start_soon(carry, courier)
        for _ in range(5):
            await checkpoint()
        if called_back:
            courier.cancel()
        group.cancel_scope.cancel()
    assert not went_on


async def test_an_error_of_a_transport_that_is_called_back_comes_out() -> None:
    watchdog = TimeoutMonitor()

    async def stubborn(_: Request) -> Response:
        courier.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError("mine")

    with watchdog.new_timeout() as courier:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await courier.run(stubborn, REQUEST, math.inf)
        assert REPLY is await courier.run(at_once, REQUEST, math.inf)
        await checkpoint()


async def test_leaving_the_session_calls_back_every_kind_of_courier() -> None:
    session, transport = session_on(stalled, concurrency=8)
    kinds: list[FailureKind] = []

    async def ask(session: AsyncSession, count: int) -> None:
        outcomes = await session.info(ids(count))
        kinds.extend(outcomes.counts().elements())

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(ask, session, 1)
            group.start_soon(ask, session, 3)
            while transport.in_flight < 4:
                await checkpoint()
        assert 0 == transport.in_flight
    assert [FailureKind.CONNECTION_LOST] * 4 == kinds
