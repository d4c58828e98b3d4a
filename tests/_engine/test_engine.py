"""The engine: a bounded, fair and cancel-safe fan-out with one outcome for each key."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kaleden
from kaleden import Failure, FailureKind, Success
from kaleden._http import Transport, TransportError
from kaleden._wire import Request, Response
from support import (
    CheckpointCounter,
    FakeTransport,
    data,
    described,
    session_id,
    session_object,
    session_on,
    stalled,
    text,
)
from virtual_time import in_virtual_time


def ids(count: int) -> list[str]:
    return [f"id{number}" for number in range(count)]


async def test_every_id_has_one_outcome_in_the_given_order() -> None:
    session, _ = session_on(described)
    async with session:
        outcomes = await session.info(ids(100))
    assert ids(100) == [outcome.key for outcome in outcomes]
    assert ids(100) == [info.id for info in outcomes.values]


async def test_repeated_id_is_requested_once() -> None:
    session, transport = session_on(described)
    async with session:
        outcomes = await session.info(["a", "b", "a", "b", "a"])
    assert ["a", "b"] == [outcome.key for outcome in outcomes]
    assert 2 == len(transport.requests)


@pytest.mark.parametrize("concurrency", [1, 3, 32])
async def test_requests_in_flight_reach_the_limit_and_no_more(concurrency: int) -> None:
    session, transport = session_on(described, concurrency=concurrency)
    async with session:
        await session.info(ids(100))
    assert concurrency == transport.most_in_flight


async def test_concurrent_operations_share_one_limit() -> None:
    session, transport = session_on(described, concurrency=4)
    async with session, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(session.info, ids(30))
    assert 4 == transport.most_in_flight


async def test_small_call_does_not_wait_for_a_huge_one() -> None:
    async def reply(request: Request) -> Response:
        for _ in range(10):
            await checkpoint()
        return await described(request)

    session, transport = session_on(reply, concurrency=4)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.info, ids(10_000))
        while transport.in_flight < 4:
            await checkpoint()
        before = len(transport.requests)
        await session.info("late")
        sent_meanwhile = len(transport.requests) - before
        assert sent_meanwhile / 4 <= 4 + 2, "service times of four slots"
        group.cancel_scope.cancel()


async def yield_ids(count: int) -> AsyncIterator[str]:
    for key in ids(count):
        await checkpoint()
        yield key


async def test_ids_may_be_any_iterable_or_outcomes() -> None:
    session, _ = session_on(described)
    async with session:
        listed = await session.info(ids(9))
        for source in (tuple(ids(9)), iter(ids(9)), yield_ids(9), listed, listed.values):
            assert listed == await session.info(source)
        assert ["id3"] == (await session.info("id3")).ids
        assert ["id3"] == (await session.info(listed.values[3])).ids


@pytest.mark.parametrize("empty", [[], (), iter(()), {}])
async def test_call_without_ids_sends_nothing_and_is_a_checkpoint(empty: list[str]) -> None:
    session, transport = session_on(described)
    async with session:
        assert 0 == len(await session.info(empty))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.info(empty)
        assert scope.cancelled_caught
    assert [] == transport.requests


@pytest.mark.parametrize("bad", ["a/b", "a?b", "..", "a b", "", "x" * 10_000, 5, None, ["a"]])
async def test_invalid_id_fails_alone_and_is_not_sent(bad: object) -> None:
    session, transport = session_on(described)
    async with session:
        outcomes = await session.info(["first", bad, "last"])  # type: ignore[list-item]
    first, refused, last = outcomes
    assert (True, True) == (first.ok, last.ok)
    assert isinstance(refused, Failure)
    assert (FailureKind.INVALID, False) == (refused.kind, refused.sent)
    assert ["session/first", "session/last"] == transport.targets
    with pytest.raises(kaleden.BatchError) as caught:
        outcomes.raise_on_failure()
    assert isinstance(caught.value.exceptions[0], kaleden.InvalidRequest)


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        (
            TransportError(FailureKind.CONNECT_FAILED, "refused", sent=False),
            "connect_failed",
            False,
        ),
        (TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True), "connection_lost", True),
        (RuntimeError("a bug"), "internal", True),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "internal", True),
        (ExceptionGroup("of a transport", [ValueError("deep")]), "internal", True),
    ],
)
async def test_error_of_a_transport_fails_only_its_own_outcome(
    error: Exception, kind: str, sent: bool
) -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "id3":
            raise error
        return await described(request)

    session, _ = session_on(reply)
    async with session:
        outcomes = await session.info(ids(10))
    assert ["id3"] == list(outcomes.failures)
    assert (kind, sent) == (outcomes.failures["id3"].kind, outcomes.failures["id3"].sent)
    assert str(error) in outcomes.failures["id3"].message
    assert 9 == len(outcomes.successes)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html><title>Sign in</title></html>", "protocol"),
        (b'{"id": "id3", "na', "protocol"),
        (b"[]", "protocol"),
        (b"", "protocol"),
        (b"\xff\xfe\x00", "protocol"),
    ],
)
async def test_malformed_response_fails_only_its_own_outcome(body: bytes, kind: str) -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "id3":
            return Response(200, {"content-type": "application/json"}, body)
        return await described(request)

    session, _ = session_on(reply)
    async with session:
        outcomes = await session.info(ids(10))
    assert {"id3": kind} == {key: failure.kind for key, failure in outcomes.failures.items()}
    assert 200 == outcomes.failures["id3"].status


@in_virtual_time
async def test_attempt_is_cancelled_after_its_timeout() -> None:
    session, transport = session_on(stalled, timeout=0.001)
    async with session:
        [outcome] = await session.info("slow")
        assert isinstance(outcome, Failure)
        assert (FailureKind.TIMED_OUT, True) == (outcome.kind, outcome.sent)
        assert "0.001 seconds" in outcome.message
        assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)


async def test_waiting_for_a_slot_does_not_count_towards_the_timeout() -> None:
    release = anyio.Event()

    async def reply(request: Request) -> Response:
        if session_id(request) == "first":
            await release.wait()
        return await described(request)

    session, transport = session_on(reply, concurrency=1, timeout=30)
    outcomes = {}

    async def read_info(key: str) -> None:
        outcomes[key] = await session.info(key)

    async with session, anyio.create_task_group() as group:
        group.start_soon(read_info, "first")
        while not transport.requests:
            await checkpoint()
        group.start_soon(read_info, "second")
        while session.statistics().limiter.waiting == 0:
            await checkpoint()
        assert 1 == len(transport.requests)
        release.set()
    assert all(outcome.ok for outcome in outcomes.values())


def count_workers() -> int:
    return sum("_engine" in str(task.name) for task in anyio.get_running_tasks())


class Ids(list[str]):
    """Ids that count the workers when the first id is taken."""

    workers = 0

    def __iter__(self) -> Iterator[str]:
        self.workers = count_workers()
        yield from super().__iter__()


@pytest.mark.parametrize(
    ("count", "sized", "expected"), [(1, True, 1), (3, True, 3), (99, True, 8), (3, False, 8)]
)
async def test_workers_are_bounded_by_slots_and_ids(count: int, sized: bool, expected: int) -> None:
    keys = Ids(ids(count))
    session, _ = session_on(described, concurrency=8)
    async with session:
        assert (await session.info(keys if sized else iter(keys))).ok
    assert expected == keys.workers


async def test_workers_of_a_launch_are_bounded_by_create_concurrency() -> None:
    workers: list[int] = []
    numbers = itertools.count()

    async def reply(request: Request) -> Response:
        if request.method == "GET":
            return data([])
        workers.append(count_workers())
        return text(f"id{next(numbers)}")

    session, _ = session_on(reply, concurrency=8, create_concurrency=2)
    async with session:
        assert (await session.create("fits", "skaha/astroml:latest", replicas=5)).ok
    assert 2 == workers[0]


@in_virtual_time
async def test_failure_has_the_seconds_since_its_call() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(2)
        raise TransportError(FailureKind.CONNECTION_LOST, "cut", sent=request.method == "GET")

    session, _ = session_on(reply, concurrency=1)
    elapsed: list[float] = []

    async def read_info() -> None:
        elapsed.append((await session.info("id0")).failures["id0"].elapsed)

    async with session:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(read_info)
        # Concurrent calls wait for the only slot.
        assert [2, 4, 6] == sorted(elapsed)
        await anyio.sleep(1)
        [failure] = await session.create("fits", "skaha/astroml:latest")
        assert 2 == failure.elapsed


async def test_error_of_the_iterable_is_raised_unchanged() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    async def broken_later() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    session, transport = session_on(described)
    async with session:
        for source in (broken(), broken_later()):
            with pytest.raises(ZeroDivisionError, match="mine"):
                await session.info(source)
        assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)
        assert (await session.info("a")).ok


async def test_exception_group_of_the_iterable_is_not_unwrapped() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ExceptionGroup("mine", [ValueError("inner")])

    session, _ = session_on(described)
    async with session:
        with pytest.raises(ExceptionGroup, match="mine"):
            await session.info(broken())


async def test_call_cancelled_at_any_step_does_not_return() -> None:
    session, _ = session_on(stalled)
    returned = []

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            returned.append(await session.info(ids(2)))

    async with session:
        for step in range(30):
            scope = anyio.CancelScope()
            async with anyio.create_task_group() as group:
                group.start_soon(call, scope)
                for _ in range(step):
                    await checkpoint()
                scope.cancel()
    assert [] == returned


async def test_cancellation_releases_every_slot() -> None:
    session, transport = session_on(stalled, concurrency=4)
    async with session:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(session.info, ids(50))
                while transport.in_flight < 4:
                    await checkpoint()
                scope.cancel()
        assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)
        transport.reply = described
        assert (await session.info(ids(50))).ok


async def test_retry_failed_requests_only_failures_and_keeps_the_order() -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) in {"id2", "id4"}:
            raise TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True)
        return await described(request)

    session, transport = session_on(reply)
    async with session:
        outcomes = await session.info(ids(6))
        transport.requests.clear()
        transport.reply = described
        again = await outcomes.retry_failed()
        assert ["session/id2", "session/id4"] == sorted(transport.targets)
        assert ids(6) == [outcome.key for outcome in again]
        assert again.ok
        assert not outcomes.ok
        assert again == await again.retry_failed()


async def test_response_about_another_session_is_a_failure() -> None:
    async def reply(_: Request) -> Response:
        return data(session_object("other"))

    session, _ = session_on(reply)
    async with session:
        [failure] = (await session.info("mine")).failures.values()
    assert FailureKind.PROTOCOL == failure.kind
    assert "about session 'other'" in failure.message


class Queue:
    """A source with a length that differs from the number of its items."""

    def __init__(self) -> None:
        self.items = ["a", "b"]

    def __len__(self) -> int:
        return 0

    def __aiter__(self) -> Queue:
        return self

    async def __anext__(self) -> str:
        await checkpoint()
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop()


async def test_source_with_a_length_of_zero_is_iterated() -> None:
    session, _ = session_on(described)
    async with session:
        with anyio.fail_after(60):
            assert 2 == len(await session.info(Queue()))


async def test_endless_repeated_ids_can_be_cancelled() -> None:
    session, transport = session_on(described)
    async with session:
        async with anyio.create_task_group() as group:
            group.start_soon(session.info, itertools.repeat("abc"))
            while not transport.requests:
                await checkpoint()
            group.cancel_scope.cancel()
    assert ["session/abc"] == transport.targets


async def test_source_that_fails_repeatedly_raises_once() -> None:
    class Broken:
        def __iter__(self) -> Broken:
            return self

        def __next__(self) -> str:
            raise ZeroDivisionError("mine")

    session, _ = session_on(described)
    async with session:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await session.info(Broken())


class WithoutRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("bad", [WithoutRepr(), 10**5000, b"abc"], ids=["repr", "int", "bytes"])
async def test_id_without_a_repr_fails_alone(bad: object) -> None:
    session, _ = session_on(described)
    async with session:
        outcomes = await session.info(["ok", bad])  # type: ignore[list-item]
        assert (1, 1) == (len(outcomes.successes), len(outcomes.failures))
        assert 1 == len(await session.info(b"abc"))  # type: ignore[arg-type]


async def test_invalid_id_does_not_replace_an_equal_looking_valid_one() -> None:
    session, transport = session_on(described)
    async with session:
        outcomes = await session.info([1, "1"])  # type: ignore[list-item]
        assert {"1"} == set(outcomes.successes)
        assert outcomes == await outcomes.retry_failed()
    assert ["session/1"] == transport.targets


async def test_application_is_not_mistaken_for_its_desktop() -> None:
    app = kaleden.SessionInfo(id="desk1", app_id="app1")
    session, transport = session_on(described)
    async with session:
        assert [FailureKind.INVALID] == list((await session.destroy([app])).counts())
    assert [] == transport.requests


async def test_leaving_the_session_cancels_requests_in_flight() -> None:
    session, transport = session_on(stalled, concurrency=2)
    outcomes: list[kaleden.Outcomes[kaleden.SessionInfo]] = []

    async def read_info() -> None:
        outcomes.append(await session.info(ids(5)))

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(read_info)
            while transport.in_flight < 2:
                await checkpoint()
        assert 0 == transport.in_flight
    assert 2 == len(transport.requests)
    [closed] = outcomes
    assert {FailureKind.CONNECTION_LOST: 2, FailureKind.CONNECT_FAILED: 3} == closed.counts()
    assert all("closed" in failure.message for failure in closed.failures.values())


async def test_parsing_a_long_list_yields_to_other_tasks() -> None:
    iterations = CheckpointCounter()

    async def reply(_: Request) -> Response:
        iterations.count = 0
        return data([session_object("a")] * 2_000)

    session, _ = session_on(reply)
    async with session, anyio.create_task_group() as group:
        group.start_soon(iterations.run)
        assert 2_000 == len(await session.fetch())
        assert iterations.count >= 20
        group.cancel_scope.cancel()


# --- streams -------------------------------------------------------------------------------------


async def test_stream_yields_every_outcome() -> None:
    session, _ = session_on(described, concurrency=4)
    seen = []
    async with session, session.stream.info(ids(100)) as results:
        async for outcome in results:
            assert isinstance(outcome, Success)
            seen.append(outcome.value.id)
    assert sorted(ids(100)) == sorted(seen)


async def test_slow_consumer_slows_the_requests_down() -> None:
    session, transport = session_on(described, concurrency=4)
    async with session, session.stream.info(f"id{number}" for number in range(10**9)) as results:
        received = 0
        async for _ in results:
            received += 1
            for _ in range(20):
                await checkpoint()
            assert len(transport.requests) <= received + 2 * 4
            if received == 50:
                break


async def test_error_in_the_block_of_a_stream_is_raised_unchanged() -> None:
    session, transport = session_on(described, concurrency=4)
    async with session:
        for error in (
            ValueError("mine"),
            StopAsyncIteration("mine"),
            ExceptionGroup("mine", [KeyError()]),
        ):
            with pytest.raises(type(error), match="mine") as caught:
                async with session.stream.info(ids(50)) as results:
                    async for _ in results:
                        raise error
            assert error is caught.value
            assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)


async def test_error_of_the_iterable_of_a_stream_is_raised_unchanged() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    session, _ = session_on(described)
    async with session:
        with pytest.raises(ZeroDivisionError, match="mine"):
            async with session.stream.info(broken()) as results:
                async for _ in results:
                    pass


async def test_keyboard_interrupt_is_not_wrapped() -> None:
    session, _ = session_on(described)
    async with session:
        with pytest.raises(KeyboardInterrupt):
            async with session.stream.info(ids(50)) as results:
                async for _ in results:
                    raise KeyboardInterrupt


async def test_leaving_a_stream_early_leaves_no_request() -> None:
    session, transport = session_on(described, concurrency=4)
    async with session:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for depth in range(12):
                async with session.stream.info(ids(50)) as results:
                    for _ in range(depth):
                        await anext(results)
        assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)


async def test_stream_cancelled_at_any_step_leaves_no_request() -> None:
    session, transport = session_on(described, concurrency=4)

    async def consume() -> None:
        async with session.stream.info(yield_ids(20)) as results:
            async for _ in results:
                await checkpoint()

    async with session:
        for step in range(120):
            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                for _ in range(step):
                    await checkpoint()
                group.cancel_scope.cancel()
            assert (0, 0) == (session.statistics().limiter.in_flight, transport.in_flight)


@pytest.mark.slow
async def test_memory_of_a_stream_does_not_grow_with_its_outcomes() -> None:
    async def measure_memory(count: int) -> int:
        """Return the peak memory in bytes, without garbage that is not collected yet."""
        peak = received = 0
        session, transport = session_on(described, concurrency=4)
        tracemalloc.start()
        async with (
            session,
            session.stream.info(f"id{number}" for number in range(count)) as results,
        ):
            async for _ in results:
                transport.requests.clear()
                received += 1
                if received % 100 == 0:
                    gc.collect()
                    peak = max(peak, tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        return peak

    await measure_memory(100)
    # The constant allows for the buffers of a run under load.
    assert await measure_memory(2_000) < await measure_memory(200) * 1.1 + 50_000


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), SystemExit(3)])
async def test_error_beside_a_cancellation_is_not_lost(error: BaseException) -> None:
    session, _ = session_on(stalled)
    async with session:
        with pytest.raises(type(error)) as caught, anyio.CancelScope() as scope:
            async with session.stream.info(ids(3)) as results:
                scope.cancel()
                try:
                    await anext(results)
                finally:
                    raise error
        assert error is caught.value


async def test_error_of_the_source_does_not_end_a_stream_as_complete() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError("mine")

    session, _ = session_on(described)
    complete = False
    async with session:
        with pytest.raises(ZeroDivisionError):
            async with session.stream.info(broken()) as results:
                async for _ in results:
                    pass
                complete = True
    assert not complete


async def test_stream_is_refused_after_its_block() -> None:
    session, _ = session_on(described)
    async with session:
        async with session.stream.info(ids(3)) as results:
            pass
        with pytest.raises(kaleden.SessionNotOpen, match="block was left"):
            await anext(results)


# --- the client's loop ---------------------------------------------------------------------------


async def test_session_is_refused_before_and_after_its_block() -> None:
    session, _ = session_on(described)
    with pytest.raises(kaleden.SessionNotOpen, match="async with"):
        await session.info("a")
    async with session:
        outcomes = await session.info("a")
        with pytest.raises(RuntimeError, match="already been entered"):
            async with session:
                pass
    with pytest.raises(kaleden.SessionNotOpen):
        await session.info("a")
    with pytest.raises(kaleden.SessionNotOpen, match="closed"):
        await outcomes.retry_failed()


async def test_session_can_be_opened_again() -> None:
    session, _ = session_on(described)
    for _ in range(2):
        async with session:
            assert (await session.info("a")).ok


async def test_another_event_loop_is_refused() -> None:
    session, transport = session_on(described)

    def call_in_another_loop() -> None:
        with pytest.raises(kaleden.WrongEventLoop, match="another AsyncSession"):
            anyio.run(session.info, "a")

    async with session:
        await anyio.to_thread.run_sync(call_in_another_loop)
    assert [] == transport.requests


def test_fake_transport_is_a_transport() -> None:
    assert isinstance(FakeTransport(described), Transport)
    assert session_object("a")["id"] == "a"
    assert data({}).status == 200
