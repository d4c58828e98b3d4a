"""Details of outcomes, messages and statistics, found untested by mutation tests."""

from __future__ import annotations

import itertools
import re
from typing import Any

import anyio
import pytest

from kaleden import Failure, FailureKind, Outcomes, RetryPolicy, Success
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._engine._operations import Operation, info
from kaleden._http import TransportError
from kaleden._results._outcome import contradict_success
from kaleden._wire import Request, Response
from kaleden._wire._requests import build_list
from kaleden._wire._responses import parse_raw_list
from support import (
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


def failure(key: str, kind: FailureKind = FailureKind.NOT_FOUND, **others: Any) -> Failure:
    return Failure(key, kind, "gone", **others)


def test_failure_str_shows_the_status_if_there_is_one() -> None:
    assert "a: gone (not_found, HTTP 404)" == str(failure("a", status=404))
    assert "a: gone (not_found)" == str(failure("a"))
    tried = failure("a", status=503, retry_after=29.9, attempts=4)
    assert "a: gone (not_found, HTTP 503, asked to wait 30 s, after 4 attempts)" == str(tried)
    assert "a: gone (not_found, asked to wait 1 s)" == str(failure("a", retry_after=0.1))
    assert "a: gone (not_found, after 2 attempts)" == str(failure("a", attempts=2))


def test_outcomes_repr_counts_failures_by_kind() -> None:
    quota = FailureKind.QUOTA
    outcomes = Outcomes[Any]("info", [failure("a", quota), failure("b"), failure("c")])
    assert "<Outcomes info: 0 ok, 3 failed (not_found=2, quota=1)>" == repr(outcomes)


def test_outcomes_table_has_a_row_for_each_outcome() -> None:
    outcomes = Outcomes[Any]("info", [Success("a", "<x>"), failure("b")])
    table = outcomes._repr_html_()
    text = re.sub("(<[^>]*>)+", "|", table)
    assert text.startswith("|info: 1 ok, 1 failed (not_found=1)|key|state|value|message|")
    assert text.endswith("|a|ok|&lt;x&gt;|b|not_found|gone|")
    assert table.endswith("</tr></tbody></table>")


def test_table_of_a_hundred_outcomes_is_complete() -> None:
    hundred = [Success(f"id{number}", 1) for number in range(100)]
    assert "more" not in Outcomes[Any]("info", hundred)._repr_html_()
    assert "… and 1 more" in Outcomes[Any]("info", [*hundred, Success("z", 1)])._repr_html_()


def test_outcomes_without_an_operation_are_refused() -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        Outcomes.from_json('{"outcomes": []}')


@pytest.mark.parametrize("flag", [False, True])
async def test_raw_may_be_a_variable(flag: bool) -> None:
    # The type checkers verify that a `bool` is accepted.
    session, _ = session_on(described)
    async with session:
        [outcome] = await session.info("a", raw=flag)
        assert outcome.ok
        assert flag is isinstance(outcome.value, dict)
        async with session.stream.info("a", raw=flag) as results:
            assert "<OutcomeStream: 0 waiting>" == repr(results)
            [streamed] = [outcome async for outcome in results]
            assert outcome == streamed
        async with session.follow([]) as lines:
            assert "<LogStream: 0 buffered>" == repr(lines)


async def test_session_retry_failed_retries_failures() -> None:
    async def reply(request: Request) -> Response:
        if len(transport.requests) == 1:
            return text("session not found", 404)

        return await described(request)

    session, transport = session_on(reply)
    async with session:
        first = await session.info("a")
        assert not first.ok
        again = await session.retry_failed(first)
    match again["a"]:
        case Success(value=value):
            assert "a" == value.id
        case Failure(message=message):
            pytest.fail(message)


async def test_retried_outcomes_can_be_retried_again() -> None:
    async def reply(_: Request) -> Response:
        return text("session not found", 404)

    session, transport = session_on(reply)
    async with session:
        twice = await (await (await session.info("a")).retry_failed()).retry_failed()
    assert "info" == twice.operation
    assert 3 == len(transport.requests)


async def test_invalid_id_has_no_attempts() -> None:
    session, _ = session_on(described)
    numbers: Any = [5]
    async with session:
        [outcome] = await session.info("a/b")
        [unnamed] = await session.info(numbers)
    assert isinstance(outcome, Failure)
    assert (0, False) == (outcome.attempts, outcome.sent)
    assert "a/b" in outcome.message
    assert "<5>" == unnamed.key


async def test_final_transport_error_is_not_retried() -> None:
    async def reply(_: Request) -> Response:
        raise TransportError(FailureKind.CONNECT_FAILED, "no trust", sent=False, final=True)

    session, transport = session_on(reply, retry=RetryPolicy())
    async with session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert outcome.final
    assert 1 == len(transport.requests)


@pytest.mark.parametrize(
    ("status", "message"), [(401, "denied; it was a saved one"), (403, "denied")]
)
async def test_login_is_named_only_in_authentication_failures(status: int, message: str) -> None:
    async def reply(_: Request) -> Response:
        return text("denied", status)

    for login, expected in ((["it was a saved one"], message), ([], "denied")):
        engine = Engine(Limiter(1), FakeTransport(reply), None, *login)
        [outcome] = await engine.collect(info(Limits()), ["a"])
        assert isinstance(outcome, Failure)
        assert ("a", expected, status) == (outcome.key, outcome.message, outcome.status)
        await engine.aclose()


async def test_incrementally_parsed_response_is_an_outcome() -> None:
    async def reply(_: Request) -> Response:
        return data([session_object("a")])

    sessions = Operation("sessions", lambda _: build_list(), parse_raw_list, 1.0)
    engine = Engine(Limiter(1), transport := FakeTransport(reply))
    outcomes = await engine.collect(sessions, ["all"])
    assert "sessions" == outcomes.operation
    assert outcomes.ok
    assert "sessions" == (await outcomes.retry_failed()).operation
    await engine.aclose()
    assert 1 == len(transport.requests)


@in_virtual_time
async def test_back_off_does_not_count_towards_the_timeout() -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "b":
            await anyio.sleep_forever()
        if len(transport.requests) <= 2:
            raise TransportError(FailureKind.CONNECTION_LOST, "broken", sent=True)
        return data(session_object("a"))

    policy = RetryPolicy(attempts=2, base=1e4, cap=1e4, total=1e6, seed=1)
    session, transport = session_on(reply, retry=policy, timeout=1)
    async with session:
        outcomes = await session.info(["a", "b"])
    assert ["a"] == list(outcomes.successes)
    assert FailureKind.TIMED_OUT is outcomes.failures["b"].kind


@in_virtual_time
async def test_close_abandons_a_shielded_transport_after_five_seconds() -> None:
    async def reply(_: Request) -> Response:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(60)
        return text("late")

    engine = Engine(Limiter(1), FakeTransport(reply))
    async with anyio.create_task_group() as group:
        group.start_soon(engine.collect, info(Limits()), ["a"])
        await anyio.sleep(1)
        started = anyio.current_time()
        await engine.aclose()
        assert 5 == anyio.current_time() - started


@pytest.mark.parametrize("cancelled", [False, True])
@in_virtual_time
async def test_client_waits_for_its_cancelled_requests_to_end(cancelled: bool) -> None:
    sent: list[Request] = []

    async def reply(request: Request) -> Response:
        sent.append(request)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(float(session_id(request)))
        raise AssertionError

    session, transport = session_on(reply)
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with session:
                group.start_soon(session.info, ["1", "3", "2"])
                while len(sent) < 3:
                    await anyio.lowlevel.checkpoint()
                started = anyio.current_time()
                if cancelled:
                    scope.cancel()
        assert 0 == transport.in_flight
        assert 3 == anyio.current_time() - started


async def test_stream_returns_waiting_outcomes_at_once() -> None:
    session, _ = session_on(described, concurrency=3)
    async with session:
        async with session.stream.info(["a", "b", "c"]) as results:
            assert [] == results.receive_nowait()
            while "<OutcomeStream: 3 waiting>" != repr(results):
                await anyio.lowlevel.checkpoint()
            assert {"a", "b", "c"} == {outcome.key for outcome in results.receive_nowait()}
            assert [] == [outcome async for outcome in results]
            assert [] == results.receive_nowait()
        assert [] == results.receive_nowait()


@in_virtual_time
async def test_request_refused_by_a_pause_has_its_waiting_time() -> None:
    async def reply(_: Request) -> Response:
        await anyio.sleep(3)
        return text("busy", 503, **{"retry-after": "100"})

    session, transport = session_on(reply, concurrency=1)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.info, "a")
        while not transport.requests:
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(1)
        with anyio.fail_after(50):
            [outcome] = await session.info("b")
    assert isinstance(outcome, Failure)
    assert (2, 100, 0) == (outcome.elapsed, outcome.retry_after, outcome.attempts)


@in_virtual_time
async def test_creates_in_flight_reach_their_limit() -> None:
    numbers = itertools.count()

    async def reply(request: Request) -> Response:
        await anyio.sleep(1)
        return data([]) if request.method == "GET" else text(f"id{next(numbers)}")

    session, transport = session_on(reply, concurrency=8, create_concurrency=2)
    started = anyio.current_time()
    async with session:
        assert (await session.create("fits", "skaha/astroml:latest", replicas=6)).ok
    assert 2 == transport.most_in_flight
    assert 4 == anyio.current_time() - started


@in_virtual_time
async def test_pause_is_logged_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    await anyio.sleep(7)
    limiter = Limiter(1)
    limiter.pause(anyio.current_time() + 3, failure("a"))
    messages = [record.getMessage() for record in caplog.records if record.name == "kaleden"]
    assert ["nothing is sent for 3 seconds: gone"] == messages


async def test_bug_is_reported_with_its_exception_type() -> None:
    async def reply(_: Request) -> Response:
        raise KeyError("left out")

    session, _ = session_on(reply)
    async with session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert "please report this: KeyError: 'left out'" == outcome.message


@in_virtual_time
async def test_failure_has_its_elapsed_time() -> None:
    async def reply(_: Request) -> Response:
        await anyio.sleep(2)
        raise TransportError(FailureKind.PROTOCOL, "no HTTP", sent=True)

    session, _ = session_on(reply)
    await anyio.sleep(7)
    async with session:
        [outcome] = await session.info("a")
    assert 2 == outcome.elapsed


async def test_closed_session_marks_only_requests_in_flight_as_sent() -> None:
    session, transport = session_on(stalled, concurrency=1, retry=None)
    outcomes: list[Outcomes[Any]] = []

    async def read_info() -> None:
        outcomes.append(await session.info(["a", "b"]))

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(read_info)
            while not transport.requests:
                await anyio.lowlevel.checkpoint()
    assert [True, False] == [
        outcome.sent for outcome in outcomes[0] if isinstance(outcome, Failure)
    ]


@in_virtual_time
async def test_statistics_count_pauses_and_retries() -> None:
    async def reply(request: Request) -> Response:
        if len(transport.requests) in {1, 2}:
            return text("busy", 503, **{"retry-after": "3"})
        return data(session_object(session_id(request)))

    policy = RetryPolicy(reserve=2, share=0.0)
    session, transport = session_on(reply, retry=policy)
    async with session:
        assert 0.0 == session.statistics().limiter.paused
        assert (await session.info("a")).ok
        state = session.statistics()
        assert 2 == state.limiter.pauses
        assert 0.0 == state.limiter.paused
        retries = state.retries
        assert (1, 2, 0) == (retries.first, retries.repeated, retries.refused)
        assert 0.0 == retries.budget


async def test_statistics_count_retries_that_the_budget_refused() -> None:
    async def reply(_: Request) -> Response:
        return text("busy", 503)

    session, _ = session_on(reply, retry=RetryPolicy(reserve=0, share=0))
    async with session:
        await session.info(["a", "b", "c"])
        assert 3 == session.statistics().retries.refused


@in_virtual_time
async def test_retry_refused_by_a_pause_returns_the_failure_before_it() -> None:
    async def reply(request: Request) -> Response:
        if session_id(request) == "a":
            return text("no server behind this proxy", 502)
        await anyio.sleep(0.01)
        return text("busy", 503, **{"retry-after": "100"})

    session, transport = session_on(reply, retry=RetryPolicy(base=8, seed=1))
    async with session:
        with anyio.fail_after(50):
            outcomes = await session.info(["a", "b"])
    assert 2 == len(transport.requests)
    assert [502, 503] == [each.status for each in outcomes if isinstance(each, Failure)]


@in_virtual_time
async def test_concurrent_retries_stay_within_the_limit() -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(1)
        if transport.targets.count(request.target) == 1:
            return text("no server behind this proxy", 502)
        return data(session_object(session_id(request)))

    session, transport = session_on(reply, concurrency=2, retry=RetryPolicy(base=0.01))
    async with session:
        outcomes = await session.info([f"id{number}" for number in range(8)])
        assert 0 == session.statistics().limiter.in_flight
    assert outcomes.ok
    assert 2 == transport.most_in_flight


def test_contradicted_success_keeps_its_attempts_and_elapsed_time() -> None:
    success = Success("a", "an id", attempts=3, elapsed=2.5)
    failure = contradict_success(success, FailureKind.NOT_DESTROYED, "it is still there", 409)
    expected = Failure(
        "a",
        FailureKind.NOT_DESTROYED,
        "it is still there",
        409,
        sent=True,
        attempts=3,
        elapsed=2.5,
    )
    assert expected == failure
    # Equality ignores the elapsed time.
    assert 2.5 == failure.elapsed
    assert None is contradict_success(success, FailureKind.PROTOCOL, "").status
