"""Details of what is told, which only a change of one expression would show to be untested."""

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
from kaleden._results._outcome import contradicted
from kaleden._wire import Request, Response, build_list, parse_raw_list
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


def test_a_failure_says_its_status_if_there_is_one() -> None:
    assert "a: gone (not_found, HTTP 404)" == str(failure("a", status=404))
    assert "a: gone (not_found)" == str(failure("a"))
    tried = failure("a", status=503, retry_after=29.9, attempts=4)
    assert "a: gone (not_found, HTTP 503, asked to wait 30 s, after 4 attempts)" == str(tried)
    assert "a: gone (not_found, asked to wait 1 s)" == str(failure("a", retry_after=0.1))
    assert "a: gone (not_found, after 2 attempts)" == str(failure("a", attempts=2))


def test_outcomes_count_failures_by_kind_the_most_frequent_first() -> None:
    quota = FailureKind.QUOTA
    outcomes = Outcomes[Any]("info", [failure("a", quota), failure("b"), failure("c")])
    assert "<Outcomes info: 0 ok, 3 failed (not_found=2, quota=1)>" == repr(outcomes)


def test_the_table_of_outcomes_has_a_row_for_each() -> None:
    outcomes = Outcomes[Any]("info", [Success("a", "<x>"), failure("b")])
    table = outcomes._repr_html_()
    text = re.sub("(<[^>]*>)+", "|", table)
    assert text.startswith("|info: 1 ok, 1 failed (not_found=1)|key|state|value|message|")
    assert text.endswith("|a|ok|&lt;x&gt;|b|not_found|gone|")
    assert table.endswith("</tr></tbody></table>")


def test_a_table_of_just_a_hundred_leaves_nothing_out() -> None:
    hundred = [Success(f"id{number}", 1) for number in range(100)]
    assert "more" not in Outcomes[Any]("info", hundred)._repr_html_()
    assert "… and 1 more" in Outcomes[Any]("info", [*hundred, Success("z", 1)])._repr_html_()


def test_outcomes_of_no_operation_say_so() -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        Outcomes.from_json('{"outcomes": []}')


@pytest.mark.parametrize("flag", [False, True])
async def test_whether_results_are_raw_may_be_decided_late(flag: bool) -> None:
    # That a `bool` fits is for the type checkers to say.
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


async def test_a_session_retries_what_failed_as_its_outcomes_do() -> None:
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


async def test_what_was_retried_can_be_retried_again() -> None:
    async def reply(_: Request) -> Response:
        return text("session not found", 404)

    session, transport = session_on(reply)
    async with session:
        twice = await (await (await session.info("a")).retry_failed()).retry_failed()
    assert "info" == twice.operation
    assert 3 == len(transport.requests)


async def test_what_is_refused_here_was_never_tried() -> None:
    session, _ = session_on(described)
    numbers: Any = [5]
    async with session:
        [outcome] = await session.info("a/b")
        [unnamed] = await session.info(numbers)
    assert isinstance(outcome, Failure)
    assert (0, False) == (outcome.attempts, outcome.sent)
    assert "a/b" in outcome.message
    assert "<5>" == unnamed.key


async def test_what_a_transport_calls_final_is_not_tried_again() -> None:
    async def reply(_: Request) -> Response:
        raise TransportError(FailureKind.CONNECT_FAILED, "no trust", sent=False, final=True)

    session, transport = session_on(reply, retry=RetryPolicy())
    async with session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert outcome.final
    assert 1 == len(transport.requests)


@pytest.mark.parametrize(("status", "told"), [(401, "denied; it was a saved one"), (403, "denied")])
async def test_a_refused_login_is_named_and_no_other_refusal(status: int, told: str) -> None:
    async def reply(_: Request) -> Response:
        return text("denied", status)

    for login, words in ((["it was a saved one"], told), ([], "denied")):
        engine = Engine(Limiter(1), FakeTransport(reply), None, *login)
        [outcome] = await engine.collect(info(Limits()), ["a"])
        assert isinstance(outcome, Failure)
        assert ("a", words, status) == (outcome.key, outcome.message, outcome.status)
        await engine.aclose()


async def test_long_replies_are_outcomes_like_others() -> None:
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
async def test_what_waits_for_another_attempt_has_no_time_that_could_run_out() -> None:
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
async def test_a_transport_that_cannot_be_stopped_keeps_nobody_for_long() -> None:
    async def reply(_: Request) -> Response:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(60)
        return text("late")

    engine = Engine(Limiter(1), FakeTransport(reply))
    async with anyio.create_task_group() as group:
        group.start_soon(engine.collect, info(Limits()), ["a"])
        await anyio.sleep(1)
        began = anyio.current_time()
        await engine.aclose()
        assert 5 == anyio.current_time() - began


@pytest.mark.parametrize("cancelled", [False, True])
@in_virtual_time
async def test_a_client_is_left_when_all_that_it_gave_up_has_ended(cancelled: bool) -> None:
    begun: list[Request] = []

    async def reply(request: Request) -> Response:
        begun.append(request)
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
                while len(begun) < 3:
                    await anyio.lowlevel.checkpoint()
                began = anyio.current_time()
                if cancelled:
                    scope.cancel()
        assert 0 == transport.in_flight
        assert 3 == anyio.current_time() - began


async def test_a_stream_tells_what_is_at_hand_and_gives_it_at_once() -> None:
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
async def test_a_request_that_a_pause_kept_back_tells_how_long_it_waited() -> None:
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
async def test_creates_at_once_are_as_many_as_may_be() -> None:
    numbers = itertools.count()

    async def reply(request: Request) -> Response:
        await anyio.sleep(1)
        return data([]) if request.method == "GET" else text(f"id{next(numbers)}")

    session, transport = session_on(reply, concurrency=8, create_concurrency=2)
    began = anyio.current_time()
    async with session:
        assert (await session.create("fits", "skaha/astroml:latest", replicas=6)).ok
    assert 2 == transport.most_in_flight
    assert 4 == anyio.current_time() - began


@in_virtual_time
async def test_a_pause_is_logged_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    await anyio.sleep(7)
    gate = Limiter(1)
    gate.pause(anyio.current_time() + 3, failure("a"))
    told = [record.getMessage() for record in caplog.records if record.name == "kaleden"]
    assert ["nothing is sent for 3 seconds: gone"] == told


async def test_a_bug_is_told_by_its_name() -> None:
    async def reply(_: Request) -> Response:
        raise KeyError("left out")

    session, _ = session_on(reply)
    async with session:
        [outcome] = await session.info("a")
    assert isinstance(outcome, Failure)
    assert "please report this: KeyError: 'left out'" == outcome.message


@in_virtual_time
async def test_a_failure_tells_how_long_it_took() -> None:
    async def reply(_: Request) -> Response:
        await anyio.sleep(2)
        raise TransportError(FailureKind.PROTOCOL, "no HTTP", sent=True)

    session, _ = session_on(reply)
    await anyio.sleep(7)
    async with session:
        [outcome] = await session.info("a")
    assert 2 == outcome.elapsed


async def test_what_a_closed_session_gave_up_had_left_and_the_rest_had_not() -> None:
    session, transport = session_on(stalled, concurrency=1, retry=None)
    told: list[Outcomes[Any]] = []

    async def ask() -> None:
        told.append(await session.info(["a", "b"]))

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(ask)
            while not transport.requests:
                await anyio.lowlevel.checkpoint()
    assert [True, False] == [outcome.sent for outcome in told[0] if isinstance(outcome, Failure)]


@in_virtual_time
async def test_pauses_and_repetitions_are_counted() -> None:
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


async def test_what_the_budget_refused_is_counted() -> None:
    async def reply(_: Request) -> Response:
        return text("busy", 503)

    session, _ = session_on(reply, retry=RetryPolicy(reserve=0, share=0))
    async with session:
        await session.info(["a", "b", "c"])
        assert 3 == session.statistics().retries.refused


@in_virtual_time
async def test_a_repetition_that_finds_a_long_pause_tells_what_it_failed_of() -> None:
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
async def test_repetitions_at_once_stay_within_the_limit() -> None:
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


def test_the_failure_of_a_contradicted_success_keeps_what_is_known_of_it() -> None:
    success = Success("a", "an id", attempts=3, elapsed=2.5)
    failure = contradicted(success, FailureKind.NOT_DESTROYED, "it is still there", 409)
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
    # Equality leaves the time out.
    assert 2.5 == failure.elapsed
    assert None is contradicted(success, FailureKind.PROTOCOL, "").status
