"""Retries: the transient failures, the budget, Retry-After, deadlines and the adaptive limit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import pytest

from support import (
    IMAGE,
    PLAIN_BACKENDS,
    data,
    described,
    ids,
    session_id,
    session_on,
    stalled,
    text,
)

pytest.importorskip("anycorn")

from kaleden import (
    AsyncSession,
    Failure,
    FailureKind,
    Outcome,
    RetryPolicy,
    SessionInfo,
    Success,
    Unavailable,
)
from kaleden._engine._retry import DEADLINE_MARGIN
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from virtual_time import in_virtual_time

ResponseOrError = Response | Exception

POLICY = RetryPolicy(seed=1)
LOST = TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True)
REFUSED = TransportError(FailureKind.CONNECT_FAILED, "connection refused", sent=False)
READS = ["info", "logs", "renew", "destroy", "list"]


def busy(seconds: str | None = None, status: int = 503) -> Response:
    headers = {} if seconds is None else {"retry-after": seconds}
    return text("temporarily unavailable\n", status, **headers)


def reply_in_turn(*replies: ResponseOrError) -> Callable[[Request], Awaitable[Response]]:
    """Give each session the replies in turn, and then successes."""
    count = Counter[str]()

    async def reply(request: Request) -> Response:
        key = session_id(request)
        count[key] += 1
        given = replies[count[key] - 1] if count[key] <= len(replies) else None
        if isinstance(given, Exception):
            raise given
        return given or await described(request)

    return reply


def reply_first(first: Response) -> Callable[[Request], Awaitable[Response]]:
    """Reply to the very first request with *first*, and to all others with success."""
    replies = [first]

    async def reply(request: Request) -> Response:
        return replies.pop() if replies else await described(request)

    return reply


async def unavailable(_: Request) -> Response:
    return busy()


# --- which failures are retried ------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem",
    [LOST, REFUSED, busy(), busy("1"), busy(None, 429), text("", 502), text("", 504)],
    ids=["lost", "refused", "503", "503-after", "429", "502", "504"],
)
@in_virtual_time
async def test_transient_failure_is_retried(problem: ResponseOrError) -> None:
    session, transport = session_on(reply_in_turn(problem, problem), retry=POLICY)
    async with session:
        [outcome] = await session.info("a")
        assert isinstance(outcome, Success)
        assert 3 == outcome.attempts == len(transport.requests)
        assert anyio.current_time() == outcome.elapsed > 0
        assert (1, 2) == (
            session.statistics().retries.first,
            session.statistics().retries.repeated,
        )


@in_virtual_time
async def test_timed_out_attempt_is_retried() -> None:
    async def reply(request: Request) -> Response:
        return await (stalled if len(transport.requests) == 1 else described)(request)

    session, transport = session_on(reply, retry=POLICY, timeout=30)
    async with session:
        [outcome] = await session.info("a")
        assert isinstance(outcome, Success)
        assert 2 == outcome.attempts
        assert 30 <= outcome.elapsed <= 30.5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
@in_virtual_time
async def test_permanent_failure_is_not_retried(status: int) -> None:
    session, transport = session_on(
        reply_in_turn(text("session a not found", status)), retry=POLICY
    )
    async with session:
        [outcome] = await session.info("a")
    assert not outcome.ok
    assert 1 == outcome.attempts == len(transport.requests)
    assert 0 == anyio.current_time()


@in_virtual_time
async def test_failure_describes_the_last_attempt_and_counts_all() -> None:
    session, transport = session_on(
        reply_in_turn(busy(), LOST, busy(), text("worse", 504)), retry=POLICY
    )
    async with session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert (FailureKind.SERVER_ERROR, 504, "worse") == (
        outcome.kind,
        outcome.status,
        outcome.message,
    )
    assert 4 == outcome.attempts == len(transport.requests)
    assert anyio.current_time() == outcome.elapsed


@in_virtual_time
async def test_all_idempotent_requests_are_retried() -> None:
    faults = [Fault(FaultKind.RESET_AFTER, kind, nth=1) for kind in READS]
    async with MemoryTransport(faults=FaultPlan(faults)) as transport:
        session = AsyncSession(transport=transport, retry=POLICY)
        async with session:
            [key] = (await session.create("fits", IMAGE)).ids
            assert (await session.info(key)).ok
            assert (await session.logs(key)).ok
            await anyio.sleep(5)
            assert (await session.renew(key)).ok
            assert (await session.destroy(key)).ok
            assert 1 == transport.requests["create"]
            assert len(READS) == session.statistics().retries.repeated


@in_virtual_time
async def test_retries_are_off_without_a_policy() -> None:
    session, transport = session_on(reply_in_turn(LOST), retry=None)
    async with session:
        assert not (await session.info("a")).ok
        assert 0 == session.statistics().retries.repeated
    assert 1 == len(transport.requests)


@in_virtual_time
async def test_back_off_holds_no_slot() -> None:
    async def reply(request: Request) -> Response:
        return busy() if session_id(request) == "bad" else await described(request)

    session, _ = session_on(reply, retry=RetryPolicy(base=10, seed=1), concurrency=1)
    times = {}

    async def read_info(key: str) -> None:
        await session.info(key)
        times[key] = anyio.current_time()

    async with session, anyio.create_task_group() as group:
        group.start_soon(read_info, "bad")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(read_info, "good")
    assert times["good"] <= 0.1 < times["bad"]


@in_virtual_time
async def test_equal_seeds_give_equal_back_offs() -> None:
    elapsed = []
    for seed in (7, 7, 8):
        session, _ = session_on(reply_in_turn(LOST, LOST), retry=RetryPolicy(seed=seed))
        async with session:
            [outcome] = await session.info("a")
            elapsed.append(round(outcome.elapsed, 9))
    assert elapsed[0] == elapsed[1] != elapsed[2]


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 1_000])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_retries_of_a_failing_server_are_bounded_by_the_budget(backend: str, count: int) -> None:
    async def main() -> None:
        session, transport = session_on(unavailable, retry=RetryPolicy(seed=1))
        async with session:
            outcomes = await session.info(ids(count))
            assert count == len(outcomes.failures)
            assert sum(outcome.attempts for outcome in outcomes) == len(transport.requests)
            assert len(transport.requests) <= 1.2 * count + 10
            # The budget is also used up.
            assert len(transport.requests) >= min(4 * count, int(1.2 * count))

    run_virtual(main, backend=backend)  # type: ignore[arg-type]


@in_virtual_time
async def test_concurrent_calls_share_one_budget() -> None:
    session, transport = session_on(unavailable, retry=POLICY)
    async with session, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(session.info, [f"{number}-{key}" for key in ids(10)])
            group.start_soon(session.logs, f"{number}")
    assert len(transport.requests) <= 1.2 * 220 + 10


@in_virtual_time
async def test_successful_requests_are_sent_once() -> None:
    session, transport = session_on(described, retry=POLICY)
    async with session:
        assert (await session.info(ids(1000))).ok
        assert (1000, 0) == (
            session.statistics().retries.first,
            session.statistics().retries.repeated,
        )
    assert 1000 == len(transport.requests)


# --- Retry-After ---------------------------------------------------------------------------------


def date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(("retry_after", "seconds"), [("60", 60.0), (date, 60.0), ("86400", 300.0)])
@in_virtual_time
async def test_retry_after_pauses_all_requests(
    retry_after: str | Callable[[float], str], seconds: float
) -> None:
    header = retry_after if isinstance(retry_after, str) else retry_after(60.9)
    times: list[float] = []

    async def reply(request: Request) -> Response:
        is_first = not times
        times.append(anyio.current_time())
        await anyio.sleep(1)
        return busy(header) if is_first else await described(request)

    session, _ = session_on(reply, retry=RetryPolicy(total=1000), concurrency=4)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.info, ids(1))
        await anyio.sleep(0.5)
        group.start_soon(session.info, ids(20))
        group.start_soon(session.logs, ids(20))
        group.start_soon(session.renew, ids(20))
        await anyio.sleep(1)
        assert seconds - 1 <= session.statistics().limiter.paused <= seconds + 1
        assert 1 == session.statistics().limiter.pauses
        # These requests were in flight when the server asked for the pause.
        assert [0.0, 0.5, 0.5, 0.5] == times
    assert min(times[4:]) >= 1 + seconds - 0.9
    assert max(times) <= 1 + seconds + 20


@in_virtual_time
async def test_paused_requests_are_sent_in_fifo_order(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    async def reply(request: Request) -> Response:
        order.append(session_id(request))
        return busy("10") if len(order) == 1 else await described(request)

    session, _ = session_on(reply, retry=None, concurrency=1)
    async with session, anyio.create_task_group() as group:
        await session.info("first")
        for key in ids(9):
            group.start_soon(session.info, key)
            await anyio.wait_all_tasks_blocked()
        assert ["nothing is sent for 10 seconds: temporarily unavailable"] == caplog.messages
        assert 9 == session.statistics().limiter.waiting
        assert 0 == session.statistics().limiter.in_flight
    assert ["first", *ids(9)] == order
    assert 10 == anyio.current_time()


@in_virtual_time
async def test_pause_beyond_the_deadline_fails_at_once() -> None:
    session, transport = session_on(reply_first(busy("30")))
    async with session:
        await session.info("a")
        with anyio.fail_after(5):
            outcomes = await session.info(ids(100))
            assert 0 == anyio.current_time()
        assert 1 == len(transport.requests)
        failure = outcomes.failures["id99"]
        assert (FailureKind.UNAVAILABLE, 503, 30.0) == (
            failure.kind,
            failure.status,
            failure.retry_after,
        )
        assert (False, 0) == (failure.sent, failure.attempts)
        assert "temporarily unavailable" in failure.message
        # A call without a deadline waits.
        assert (await session.info("b")).ok
        assert 30 == anyio.current_time()


@in_virtual_time
async def test_pause_beyond_the_deadline_fails_at_once_behind_queued_requests() -> None:
    session, _ = session_on(reply_first(busy("30")), concurrency=2)
    async with session, anyio.create_task_group() as group:
        await session.info("a")
        group.start_soon(session.info, ["x", "y"])
        await anyio.wait_all_tasks_blocked()
        started = anyio.current_time()
        with anyio.fail_after(5):
            outcomes = await session.info(["b", "c", "d"])
        assert started == anyio.current_time()
        assert [30.0 - started] * 3 == [
            failure.retry_after for failure in outcomes.failures.values()
        ]
        assert 2 == session.statistics().limiter.waiting


@in_virtual_time
async def test_missing_metrics_do_not_pause_the_client() -> None:
    async def reply(request: Request) -> Response:
        return busy("30") if "view=stats" in request.target else await described(request)

    session, transport = session_on(reply, retry=POLICY, adaptive=True)
    async with session:
        with pytest.raises(Unavailable):
            await session.stats()
        assert (await session.info("a")).ok
        assert 0 == anyio.current_time()
        assert (0, 0) == (
            session.statistics().limiter.pauses,
            session.statistics().limiter.decreases,
        )
    assert 2 == len(transport.requests)


# --- deadlines -----------------------------------------------------------------------------------


@in_virtual_time
async def test_back_off_ends_before_the_deadline() -> None:
    source = random.Random(3)
    for _ in range(100):
        session, _ = session_on(unavailable, retry=RetryPolicy(base=5, seed=source.getrandbits(32)))
        async with session:
            started, seconds = anyio.current_time(), source.uniform(0.1, 20)
            with anyio.fail_after(seconds):
                [outcome] = await session.info("a")
            assert isinstance(outcome, Failure)
            assert "temporarily unavailable" in outcome.message
            assert anyio.current_time() - started == pytest.approx(outcome.elapsed)
            assert outcome.elapsed <= seconds - DEADLINE_MARGIN


@in_virtual_time
async def test_retry_after_beyond_the_deadline_raises_at_once() -> None:
    session, transport = session_on(reply_in_turn(busy("30")), retry=POLICY)
    async with session:
        with anyio.fail_after(29):
            with pytest.raises(Unavailable) as caught:
                await session.fetch()
    assert 30.0 == caught.value.failure.retry_after
    assert 0 == anyio.current_time()
    assert 1 == len(transport.requests)


@in_virtual_time
async def test_retry_cut_off_by_the_deadline_returns_the_failure_before_it() -> None:
    async def reply(request: Request) -> Response:
        return busy() if len(transport.requests) == 1 else await stalled(request)

    session, transport = session_on(reply, retry=POLICY)
    async with session:
        with anyio.fail_after(10):
            [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert (FailureKind.UNAVAILABLE, 2) == (outcome.kind, outcome.attempts)
    assert 10 - DEADLINE_MARGIN == pytest.approx(outcome.elapsed)


@in_virtual_time
async def test_retry_that_waits_for_a_slot_until_the_deadline_is_not_an_attempt() -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "b":
            return await stalled(request)
        group.start_soon(session.info, "b")
        return busy()

    session, transport = session_on(reply, retry=POLICY, concurrency=1)
    async with session, anyio.create_task_group() as group:
        with anyio.fail_after(10):
            [outcome] = await session.info("a")
        group.cancel_scope.cancel()
    assert isinstance(outcome, Failure)
    assert (FailureKind.UNAVAILABLE, 1) == (outcome.kind, outcome.attempts)
    assert 10 - DEADLINE_MARGIN == pytest.approx(outcome.elapsed)
    assert ["session/a", "session/b"] == transport.targets


@in_virtual_time
async def test_attempts_begin_within_the_total_time_of_the_policy() -> None:
    session, _ = session_on(stalled, retry=RetryPolicy(attempts=100, total=65), timeout=30)
    async with session:
        [outcome] = await session.info("a")
    assert 3 == outcome.attempts
    assert outcome.elapsed <= 65 + 30


@in_virtual_time
async def test_cancelled_back_off_leaves_no_waiting_task() -> None:
    session, _ = session_on(reply_in_turn(busy(), busy("20")), retry=RetryPolicy(base=10, seed=1))
    async with session:
        for _ in range(2):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(session.info, "a")
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
        limiter = session.statistics().limiter
        assert (0, 0) == (limiter.in_flight, limiter.waiting)
        assert (await session.info("a")).ok


@in_virtual_time
async def test_closing_the_client_ends_back_offs_and_pauses() -> None:
    outcomes: list[Outcome[SessionInfo]] = []

    async def read_info(key: str) -> None:
        outcomes.extend(await session.info(key))

    session, transport = session_on(reply_in_turn(busy("50")), retry=RetryPolicy(base=100, seed=1))
    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(read_info, "a")
            await anyio.sleep(1)
            group.start_soon(read_info, "b")
            await anyio.sleep(1)
    assert 2 == anyio.current_time()
    assert {"a": 503, "b": None} == {o.key: o.status for o in outcomes if isinstance(o, Failure)}
    assert 1 == len(transport.requests)


# --- creates -------------------------------------------------------------------------------------


@in_virtual_time
async def test_unsent_create_is_retried() -> None:
    faults = FaultPlan([Fault(FaultKind.REFUSED, "create", nth=[1, 2])])
    async with MemoryTransport(faults=faults) as transport:
        session = AsyncSession(transport=transport, retry=POLICY)
        async with session:
            async with session.scope() as scope:
                [outcome] = await scope.create("fits", IMAGE)
                assert isinstance(outcome, Success)
                assert 3 == outcome.attempts == transport.requests["create"]
                assert 1 == len(transport.sessions())
            [outcome] = await session.create("fits", IMAGE)
            assert 1 == outcome.attempts
    assert {1} == set(transport.created.values())


@pytest.mark.parametrize("fault", [FaultKind.BUSY, FaultKind.RESET_BEFORE, FaultKind.ERROR_BEFORE])
@in_virtual_time
async def test_sent_create_is_not_retried(fault: FaultKind) -> None:
    async with MemoryTransport(faults=FaultPlan([Fault(fault, "create", nth=1)])) as transport:
        session = AsyncSession(transport=transport, retry=POLICY)
        async with session:
            [outcome] = await session.create("fits", IMAGE)
    assert not outcome.ok
    assert 1 == outcome.attempts == transport.requests["create"]


@in_virtual_time
async def test_create_in_its_back_off_is_not_sent_after_its_scope_has_ended() -> None:
    faults = FaultPlan([Fault(FaultKind.REFUSED, "create")])
    async with MemoryTransport(faults=faults) as transport:
        session = AsyncSession(transport=transport, retry=RetryPolicy(base=100, total=1000, seed=1))
        async with session, anyio.create_task_group() as group:
            async with session.scope() as scope:
                group.start_soon(scope.create, "fits", IMAGE)
                await anyio.sleep(1)
                group.cancel_scope.cancel()
            assert 1 == transport.requests["create"]
    assert anyio.current_time() < 5


@in_virtual_time
async def test_clean_up_of_a_scope_retries_deletes_in_only_one_layer() -> None:
    faults = FaultPlan([Fault(FaultKind.RESET_BEFORE, "destroy", nth=[1, 2])])
    async with MemoryTransport(faults=faults, duration=1000.0) as transport:
        session = AsyncSession(transport=transport, retry=POLICY)
        async with session:
            async with session.scope() as scope:
                await scope.create("fits", IMAGE)
            assert 0 == session.statistics().retries.repeated
    assert [] == transport.sessions()
    assert 3 == transport.requests["destroy"]


# --- fairness and overloads ----------------------------------------------------------------------


@in_virtual_time
async def test_small_call_beside_a_huge_one_takes_a_few_service_times() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(1)
        return await described(request)

    session, transport = session_on(reply, concurrency=8)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.info, ids(10_000))
        await anyio.sleep(10.5)
        started = anyio.current_time()
        assert (await session.info("late")).ok
        assert anyio.current_time() - started <= 8 + 2
        assert 8 == transport.most_in_flight
        group.cancel_scope.cancel()


class Bounded:
    """A server that refuses the requests beyond its capacity."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self.refused: list[float] = []

    async def reply(self, request: Request) -> Response:
        self.in_flight += 1
        too_many = self.in_flight > self.capacity
        try:
            await anyio.sleep(1)
            if not too_many:
                return await described(request)
            self.refused.append(anyio.current_time())
            return busy()
        finally:
            self.in_flight -= 1


@pytest.mark.parametrize(("capacity", "share"), [(1, 0.5), (3, 0.2), (10, 0.1)])
@in_virtual_time
async def test_adaptive_limit_converges_to_the_capacity(capacity: int, share: float) -> None:
    server = Bounded(capacity)
    session, transport = session_on(server.reply, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(40 * capacity))
        transport.most_in_flight = 0
        server.refused.clear()
        started = anyio.current_time()
        outcomes = await session.info(f"more-{key}" for key in ids(40 * capacity))
        assert transport.most_in_flight <= capacity + 1
        assert len(outcomes.failures) <= share * len(outcomes)
        # At least half of the capacity is used.
        assert anyio.current_time() - started <= 2 * 40
        assert session.statistics().limiter.decreases > 0


@in_virtual_time
async def test_adaptive_limit_recovers_up_to_its_ceiling() -> None:
    server = Bounded(1)
    session, transport = session_on(server.reply, concurrency=16, adaptive=True)
    async with session:
        await session.info(ids(50))
        assert session.statistics().limiter.limit <= 2
        server.capacity = 1000
        await session.info(f"more-{key}" for key in ids(1000))
        assert 16 == session.statistics().limiter.limit
        assert 16 == transport.most_in_flight


@in_virtual_time
async def test_adaptive_limit_probes_with_one_request_at_its_floor() -> None:
    async def refuse(request: Request) -> Response:
        await anyio.sleep(1)
        return busy("5")

    session, transport = session_on(refuse, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(100))
        assert 1 == session.statistics().limiter.limit
        transport.most_in_flight = 0
        started = anyio.current_time()
        await session.info(ids(10))
        assert 1 == transport.most_in_flight
        # Each probe takes a pause of 5 seconds and a response of 1 second.
        assert 10 * 6 - 5 <= anyio.current_time() - started <= 10 * 6


@in_virtual_time
async def test_fixed_limit_does_not_decrease() -> None:
    session, _ = session_on(unavailable, concurrency=32)
    async with session:
        await session.info(ids(100))
        assert (32, 0) == (
            session.statistics().limiter.limit,
            session.statistics().limiter.decreases,
        )


@in_virtual_time
async def test_time_outs_count_as_overloads() -> None:
    session, _ = session_on(stalled, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(10))
        assert 5 == session.statistics().limiter.limit


@in_virtual_time
async def test_malformed_response_is_not_an_overload() -> None:
    session, _ = session_on(reply_in_turn(data([])), concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(10))
        assert 0 == session.statistics().limiter.decreases


@in_virtual_time
async def test_retry_that_a_pause_refuses_is_not_an_attempt() -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "a":
            raise TransportError(FailureKind.CONNECTION_LOST, "broken", sent=True)
        await anyio.sleep(0.5)
        return text("busy", 503, **{"retry-after": "100"})

    policy = RetryPolicy(attempts=9, base=1e4, cap=1e4, total=1e6, seed=1)
    session, transport = session_on(reply, retry=policy)
    async with session, anyio.create_task_group() as group:
        with anyio.fail_after(1e4):
            group.start_soon(session.info, "b")
            [failure] = (await session.info("a")).failures.values()
        group.cancel_scope.cancel()
    assert FailureKind.CONNECTION_LOST is failure.kind
    asked = [session_id(request) for request in transport.requests]
    assert asked.count("a") == failure.attempts
