"""What failed is tried again: within a budget and the caller's time, when the server says so."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import pytest

from support import PLAIN_BACKENDS, data, described, ids, session_id, session_on, stalled, text

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

Answer = Response | Exception

POLICY = RetryPolicy(seed=1)
LOST = TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True)
REFUSED = TransportError(FailureKind.CONNECT_FAILED, "nobody is there", sent=False)
IMAGE = "skaha/astroml:latest"
READS = ["info", "logs", "renew", "destroy", "list"]


def busy(seconds: str | None = None, status: int = 503) -> Response:
    headers = {} if seconds is None else {"retry-after": seconds}
    return text("temporarily unavailable\n", status, **headers)


def script(*answers: Answer) -> Callable[[Request], Awaitable[Response]]:
    """Answer each session's first requests so, in turn, and then well."""
    asked = Counter[str]()

    async def reply(request: Request) -> Response:
        key = session_id(request)
        asked[key] += 1
        answer = answers[asked[key] - 1] if asked[key] <= len(answers) else None
        if isinstance(answer, Exception):
            raise answer
        return answer or await described(request)

    return reply


def once(answer: Response) -> Callable[[Request], Awaitable[Response]]:
    """Answer the very first request so, and all others well."""
    answers = [answer]

    async def reply(request: Request) -> Response:
        return answers.pop() if answers else await described(request)

    return reply


async def unavailable(_: Request) -> Response:
    return busy()


# --- what is tried again -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [LOST, REFUSED, busy(), busy("1"), busy(None, 429), text("", 502), text("", 504)],
    ids=["lost", "refused", "503", "503-after", "429", "502", "504"],
)
@in_virtual_time
async def test_what_may_pass_is_tried_again(trouble: Answer) -> None:
    session, transport = session_on(script(trouble, trouble), retry=POLICY)
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
async def test_an_attempt_without_an_answer_is_tried_again() -> None:
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
async def test_what_stays_is_not_tried_again(status: int) -> None:
    session, transport = session_on(script(text("session a not found", status)), retry=POLICY)
    async with session:
        [outcome] = await session.info("a")
    assert not outcome.ok
    assert 1 == outcome.attempts == len(transport.requests)
    assert 0 == anyio.current_time()


@in_virtual_time
async def test_a_failure_tells_of_the_last_attempt_and_of_all_of_them() -> None:
    session, transport = session_on(script(busy(), LOST, busy(), text("worse", 504)), retry=POLICY)
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
async def test_everything_that_does_no_harm_twice_is_tried_again() -> None:
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
async def test_without_a_policy_nothing_is_tried_again() -> None:
    session, transport = session_on(script(LOST), retry=None)
    async with session:
        assert not (await session.info("a")).ok
        assert 0 == session.statistics().retries.repeated
    assert 1 == len(transport.requests)


@in_virtual_time
async def test_nobody_waits_at_the_gate_for_a_back_off() -> None:
    async def reply(request: Request) -> Response:
        return busy() if session_id(request) == "bad" else await described(request)

    session, _ = session_on(reply, retry=RetryPolicy(base=10, seed=1), concurrency=1)
    times = {}

    async def ask(key: str) -> None:
        await session.info(key)
        times[key] = anyio.current_time()

    async with session, anyio.create_task_group() as group:
        group.start_soon(ask, "bad")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ask, "good")
    assert times["good"] <= 0.1 < times["bad"]


@in_virtual_time
async def test_the_same_seed_waits_the_same_times() -> None:
    elapsed = []
    for seed in (7, 7, 8):
        session, _ = session_on(script(LOST, LOST), retry=RetryPolicy(seed=seed))
        async with session:
            [outcome] = await session.info("a")
            elapsed.append(round(outcome.elapsed, 9))
    assert elapsed[0] == elapsed[1] != elapsed[2]


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 1_000])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_a_server_that_always_fails_gets_a_fifth_more_and_ten(backend: str, count: int) -> None:
    async def main() -> None:
        session, transport = session_on(unavailable, retry=RetryPolicy(seed=1))
        async with session:
            outcomes = await session.info(ids(count))
            assert count == len(outcomes.failures)
            assert sum(outcome.attempts for outcome in outcomes) == len(transport.requests)
            assert len(transport.requests) <= 1.2 * count + 10
            # And no fewer: what may be spent is spent.
            assert len(transport.requests) >= min(4 * count, int(1.2 * count))

    run_virtual(main, backend=backend)  # type: ignore[arg-type]


@in_virtual_time
async def test_all_calls_share_one_budget() -> None:
    session, transport = session_on(unavailable, retry=POLICY)
    async with session, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(session.info, [f"{number}-{key}" for key in ids(10)])
            group.start_soon(session.logs, f"{number}")
    assert len(transport.requests) <= 1.2 * 220 + 10


@in_virtual_time
async def test_a_healthy_server_gets_each_request_once() -> None:
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


@pytest.mark.parametrize(("asked", "seconds"), [("60", 60.0), (date, 60.0), ("86400", 300.0)])
@in_virtual_time
async def test_no_request_leaves_before_the_server_wants_one(
    asked: str | Callable[[float], str], seconds: float
) -> None:
    said = asked if isinstance(asked, str) else asked(60.9)
    times: list[float] = []

    async def reply(request: Request) -> Response:
        is_first = not times
        times.append(anyio.current_time())
        await anyio.sleep(1)
        return busy(said) if is_first else await described(request)

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
        # Those that were on their way when the server said so.
        assert [0.0, 0.5, 0.5, 0.5] == times
    assert min(times[4:]) >= 1 + seconds - 0.9
    assert max(times) <= 1 + seconds + 20


@in_virtual_time
async def test_a_paused_gate_lets_pass_in_order(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_pause_that_outlasts_the_caller_is_told_at_once() -> None:
    session, transport = session_on(once(busy("30")))
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
        # Who has the time waits.
        assert (await session.info("b")).ok
        assert 30 == anyio.current_time()


@in_virtual_time
async def test_a_pause_is_told_at_once_also_behind_those_who_sit_it_out() -> None:
    session, _ = session_on(once(busy("30")), concurrency=2)
    async with session, anyio.create_task_group() as group:
        await session.info("a")
        group.start_soon(session.info, ["x", "y"])
        await anyio.wait_all_tasks_blocked()
        asked = anyio.current_time()
        with anyio.fail_after(5):
            outcomes = await session.info(["b", "c", "d"])
        assert asked == anyio.current_time()
        assert [30.0 - asked] * 3 == [failure.retry_after for failure in outcomes.failures.values()]
        assert 2 == session.statistics().limiter.waiting


@in_virtual_time
async def test_missing_metrics_pause_nobody() -> None:
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


# --- the caller's time ---------------------------------------------------------------------------


@in_virtual_time
async def test_no_back_off_crosses_the_callers_deadline() -> None:
    chance = random.Random(3)
    for _ in range(100):
        session, _ = session_on(unavailable, retry=RetryPolicy(base=5, seed=chance.getrandbits(32)))
        async with session:
            began, seconds = anyio.current_time(), chance.uniform(0.1, 20)
            with anyio.fail_after(seconds):
                [outcome] = await session.info("a")
            assert isinstance(outcome, Failure)
            assert "temporarily unavailable" in outcome.message
            assert anyio.current_time() - began == pytest.approx(outcome.elapsed)
            assert outcome.elapsed <= seconds - DEADLINE_MARGIN


@in_virtual_time
async def test_a_retry_after_beyond_the_deadline_is_told_at_once() -> None:
    session, transport = session_on(script(busy("30")), retry=POLICY)
    async with session:
        with anyio.fail_after(29):
            with pytest.raises(Unavailable) as caught:
                await session.fetch()
    assert 30.0 == caught.value.failure.retry_after
    assert 0 == anyio.current_time()
    assert 1 == len(transport.requests)


@in_virtual_time
async def test_a_repetition_that_meets_the_deadline_tells_the_last_real_error() -> None:
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
async def test_no_attempt_begins_after_the_policys_total() -> None:
    session, _ = session_on(stalled, retry=RetryPolicy(attempts=100, total=65), timeout=30)
    async with session:
        [outcome] = await session.info("a")
    assert 3 == outcome.attempts
    assert outcome.elapsed <= 65 + 30


@in_virtual_time
async def test_a_cancelled_back_off_leaves_nothing_behind() -> None:
    session, _ = session_on(script(busy(), busy("20")), retry=RetryPolicy(base=10, seed=1))
    async with session:
        for _ in range(2):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(session.info, "a")
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
        gate = session.statistics().limiter
        assert (0, 0) == (gate.in_flight, gate.waiting)
        assert (await session.info("a")).ok


@in_virtual_time
async def test_closing_the_client_ends_back_offs_and_pauses() -> None:
    outcomes: list[Outcome[SessionInfo]] = []

    async def ask(key: str) -> None:
        outcomes.extend(await session.info(key))

    session, transport = session_on(script(busy("50")), retry=RetryPolicy(base=100, seed=1))
    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(ask, "a")
            await anyio.sleep(1)
            group.start_soon(ask, "b")
            await anyio.sleep(1)
    assert 2 == anyio.current_time()
    assert {"a": 503, "b": None} == {o.key: o.status for o in outcomes if isinstance(o, Failure)}
    assert 1 == len(transport.requests)


# --- creates -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_create_of_which_nothing_was_sent_is_tried_again() -> None:
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


@pytest.mark.parametrize(
    "trouble", [FaultKind.BUSY, FaultKind.RESET_BEFORE, FaultKind.ERROR_BEFORE]
)
@in_virtual_time
async def test_a_create_that_left_is_not_tried_again(trouble: FaultKind) -> None:
    async with MemoryTransport(faults=FaultPlan([Fault(trouble, "create", nth=1)])) as transport:
        session = AsyncSession(transport=transport, retry=POLICY)
        async with session:
            [outcome] = await session.create("fits", IMAGE)
    assert not outcome.ok
    assert 1 == outcome.attempts == transport.requests["create"]


@in_virtual_time
async def test_a_create_in_its_back_off_does_not_leave_after_its_scope() -> None:
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
async def test_a_scope_deletes_at_its_own_pace_and_no_other() -> None:
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
async def test_a_small_call_beside_a_huge_one_takes_a_few_service_times() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(1)
        return await described(request)

    session, transport = session_on(reply, concurrency=8)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.info, ids(10_000))
        await anyio.sleep(10.5)
        began = anyio.current_time()
        assert (await session.info("late")).ok
        assert anyio.current_time() - began <= 8 + 2
        assert 8 == transport.most_in_flight
        group.cancel_scope.cancel()


class Bounded:
    """A server that refuses what is more than it bears at once."""

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
async def test_an_adaptive_limit_finds_what_the_server_bears(capacity: int, share: float) -> None:
    server = Bounded(capacity)
    session, transport = session_on(server.reply, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(40 * capacity))
        transport.most_in_flight = 0
        server.refused.clear()
        began = anyio.current_time()
        outcomes = await session.info(f"more-{key}" for key in ids(40 * capacity))
        assert transport.most_in_flight <= capacity + 1
        assert len(outcomes.failures) <= share * len(outcomes)
        # Not far from all that the server can do.
        assert anyio.current_time() - began <= 2 * 40
        assert session.statistics().limiter.decreases > 0


@in_virtual_time
async def test_an_adaptive_limit_comes_back_to_its_ceiling_and_stays_below() -> None:
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
async def test_at_the_floor_one_request_at_a_time_asks_whether_the_server_is_back() -> None:
    async def refuse(request: Request) -> Response:
        await anyio.sleep(1)
        return busy("5")

    session, transport = session_on(refuse, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(100))
        assert 1 == session.statistics().limiter.limit
        transport.most_in_flight = 0
        began = anyio.current_time()
        await session.info(ids(10))
        assert 1 == transport.most_in_flight
        # Each probe is a pause, and the answer to it.
        assert 10 * 6 - 5 <= anyio.current_time() - began <= 10 * 6


@in_virtual_time
async def test_a_fixed_limit_does_not_give_way() -> None:
    session, _ = session_on(unavailable, concurrency=32)
    async with session:
        await session.info(ids(100))
        assert (32, 0) == (
            session.statistics().limiter.limit,
            session.statistics().limiter.decreases,
        )


@in_virtual_time
async def test_time_outs_are_overloads_too() -> None:
    session, _ = session_on(stalled, concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(10))
        assert 5 == session.statistics().limiter.limit


@in_virtual_time
async def test_a_reply_of_the_wrong_kind_is_no_overload() -> None:
    session, _ = session_on(script(data([])), concurrency=32, adaptive=True)
    async with session:
        await session.info(ids(10))
        assert 0 == session.statistics().limiter.decreases
