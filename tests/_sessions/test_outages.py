"""Outages end no work: nothing is deleted, and nothing reported lost, because a list failed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS, data, text

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind
from kaleden._sessions._ledger._file import read_ledger
from kaleden._wire import Request
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from outages import (
    BAD_GATEWAY,
    BROKEN,
    BUSY,
    HTML,
    LOST,
    NO_BACKEND,
    REFUSED,
    UNREACHABLE,
    Answer,
    OutageTransport,
    is_any,
    is_list,
)

DAY = 86_400  # seconds

Scenario = Callable[[OutageTransport, kaleden.AsyncSession], Awaitable[None]]
Play = Callable[..., None]

ANSWERS = {
    "503": BUSY,
    "502": BAD_GATEWAY,
    "html": HTML,
    "404": NO_BACKEND,
    "500": BROKEN,
    "unreachable": UNREACHABLE,
    "lost": LOST,
    "401": REFUSED,
}


@pytest.fixture(params=PLAIN_BACKENDS)
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scenario in virtual time, with a client whose server can be away."""

    def play(scenario: Scenario, *faults: Fault, **options: Any) -> None:
        client = options.pop("client", {})

        async def main() -> None:
            async with MemoryTransport(faults=FaultPlan(faults), **options) as server:
                transport = OutageTransport(server)
                async with kaleden.AsyncSession(transport=transport, **client) as session:
                    await scenario(transport, session)

        run_virtual(main, backend=request.param)

    return play


def is_log(request: Request) -> bool:
    return "view=logs" in request.target


def is_create(request: Request) -> bool:
    return request.method == "POST"


def is_delete(request: Request) -> bool:
    return request.method == "DELETE"


@pytest.mark.parametrize("concerns", [is_list, is_any], ids=["lists", "all"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("length", [125, 3000])
def test_run_survives_an_outage(
    play: Play, answer: Answer, concerns: Callable[[Request], bool], length: float
) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(3, 3 + length, answer, concerns)
        transport.add(0, 3 + length, BROKEN, is_delete)
        results = await session.run("fits", IMAGE, replicas=5)
        assert results.ok
        assert ["line\n"] * 5 == [finished.log for finished in results.values]
        assert [] == transport.server.sessions()
        late = [at for at in transport.listed_at if 303 < at < 3 + length]
        if answer is not REFUSED:
            assert all(later - at >= 45 for at, later in pairwise(late))

    play(scenario, duration=60, log=lambda *_: "line\n")


def test_policy_for_retries_does_not_shorten_an_outage(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(3, 500, BUSY)
        assert (await session.run("fits", IMAGE)).ok

    play(scenario, duration=60, client={"retry": None})


def test_end_of_outage_timeout_releases_the_sessions_of_a_run(
    play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger"

    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(30, 1000, BUSY)
        results = await session.run("fits", IMAGE, replicas=3)
        assert {"fits-1", "fits-2", "fits-3"} == set(results.failures)
        assert {FailureKind.UNAVAILABLE: 3} == results.counts()
        assert 600 <= anyio.current_time() - 30 < 750
        running = {each.id for each in transport.server.sessions()}
        assert 3 == len(running)
        assert 0 == transport.server.requests["destroy"]
        assert running == {launch.session_id for launch in read_ledger(path)}
        for failure in results.failures.values():
            assert "could not be listed for 6" in failure.message
            assert "temporarily unavailable" in failure.message
            assert any(f"session {key} was released" in failure.message for key in running)
        released = [text for text in caplog.messages if "the run releases" in text]
        assert all(key in released[0] for key in running)

        # The later calls wait for the same sessions, and launch no others.
        again = await results.retry_failed()
        assert {FailureKind.UNAVAILABLE: 3} == again.counts() or again.ok
        whole = again if again.ok else await again.retry_failed()
        assert whole.ok
        assert ["line\n"] * 3 == [finished.log for finished in whole.values]
        assert 3 == transport.server.created.total()
        assert [] == transport.server.sessions()
        assert [] == read_ledger(path)

    caplog.set_level(logging.WARNING, "kaleden")
    client = {"ledger": path, "outage_timeout": 600}
    play(scenario, duration=900, log=lambda *_: "line\n", client=client)


def test_end_of_an_outage_in_which_logs_are_read_releases_the_sessions(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, 800, BUSY, is_log)
        transport.add(62, 800, BUSY, is_list)
        results = await session.run("fits", IMAGE, replicas=3)
        assert {FailureKind.UNAVAILABLE: 3} == results.counts()
        assert 3 == len(transport.server.sessions())
        assert 0 == transport.server.requests["destroy"]
        assert (await results.retry_failed()).ok
        assert 3 == transport.server.created.total()

    play(scenario, duration=60, client={"outage_timeout": 600})


@pytest.mark.parametrize("on_unread", ["release", "destroy"])
def test_session_whose_log_cannot_be_read_is_released(play: Play, on_unread: Any) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        def is_log_of_first(request: Request) -> bool:
            targets = [f"session/{each.id}?view=logs" for each in transport.server.sessions()]
            return request.target in targets[:1]

        transport.add(0, 10_000, BROKEN, is_log_of_first)
        results = await session.run("fits", IMAGE, replicas=3, on_unread=on_unread)
        [failure] = results.failures.values()
        assert FailureKind.SERVER_ERROR is failure.kind
        assert "its log could not be read" in failure.message
        left = transport.server.sessions()
        assert (1 if on_unread == "release" else 0) == len(left)
        assert all(f"session {each.id} was released" in failure.message for each in left)
        if left:
            transport._outages.clear()
            again = await results.retry_failed()
            assert again.ok
            assert 3 == transport.server.created.total()
            assert [] == transport.server.sessions()

    play(scenario, log=lambda *_: "line\n", client={"outage_timeout": 600})


def test_log_that_is_removed_in_an_outage_is_not_taken_for_an_empty_one(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, 2 * DAY, BROKEN, is_log)
        results = await session.run("fits", IMAGE)
        [failure] = results.failures.values()
        assert FailureKind.VANISHED is failure.kind
        assert "the session is Completed, and its log could not be read" in failure.message

    play(scenario, log=lambda *_: "line\n", client={"outage_timeout": None})


def test_failed_replicas_are_launched_again_as_often_as_needed(play: Play) -> None:
    failing = 2

    def fails(_: Any) -> bool:
        return failing > 0

    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        nonlocal failing
        results = await session.run("fits", IMAGE, replicas=2)
        while failing:
            assert {FailureKind.SESSION_FAILED: 2} == results.counts()
            failing -= 1
            results = await results.retry_failed()
        assert results.ok
        assert ["fits-1", "fits-2"] == [outcome.key for outcome in results]
        assert ["line\n"] * 2 == [finished.log for finished in results.values]
        assert 6 == transport.server.created.total()
        assert [] == transport.server.sessions()

    play(scenario, fails=fails, log=lambda *_: "line\n")


def test_scope_that_is_left_in_an_outage_names_what_it_leaves_and_why(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(5, 1000, REFUSED)
        with pytest.raises(kaleden.ScopeError) as caught:
            async with session.scope() as scope:
                created = await scope.create("fits", IMAGE, replicas=3)
                await anyio.sleep(10)
        assert set(created.ids) == set(caught.value.survivors) == set(caught.value.failures)
        for failure in caught.value.failures.values():
            assert (401, "Token has expired") == (failure.status, failure.message)
        assert 1 == str(caught.value).count("HTTP 401: Token has expired")

    play(scenario, duration=10**6)


def test_error_of_the_clean_up_of_a_run_has_the_results(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        def begins_with_the_first_delete(request: Request) -> bool:
            has_begun[0] = has_begun[0] or is_delete(request)
            return has_begun[0]

        has_begun = [False]
        transport.add(0, 1000, REFUSED, begins_with_the_first_delete)
        with pytest.raises(kaleden.ScopeError) as caught:
            await session.run("fits", IMAGE, replicas=3)
        outcomes = caught.value.outcomes
        assert outcomes is not None
        assert outcomes.ok
        assert ["line\n"] * 3 == [finished.log for finished in outcomes.values]
        assert "the results so far: <Outcomes run: 3 ok>" in str(caught.value)

    play(scenario, duration=60, log=lambda *_: "line\n")


def test_retry_after_does_not_extend_the_outage(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        created = await session.create("fits", IMAGE)
        transport.add(3, DAY, text("busy", 503, **{"retry-after": "3600"}))
        outcomes = await session.wait(created)
        assert {FailureKind.UNAVAILABLE: 1} == outcomes.counts()
        assert anyio.current_time() < 30

    play(scenario, client={"outage_timeout": 5})


def test_launch_without_a_response_is_found_after_an_outage(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, 600, BUSY, is_list)
        results = await session.run("fits", IMAGE, replicas=3)
        assert results.ok
        assert 600 < anyio.current_time()
        assert 3 == transport.server.created.total()
        late = [at for at in transport.listed_at if 300 < at < 600]
        assert all(later - at >= 45 for at, later in pairwise(late))

    lost = Fault(FaultKind.RESET_AFTER, "create", nth=[1, 3])
    play(scenario, lost, duration=1000, log=lambda *_: "line\n")


ROUTER = [NO_BACKEND, text("no Route matched with those values", 404), text("page not found", 404)]


@pytest.mark.parametrize("answer", [BUSY, BROKEN, HTML, LOST, *ROUTER])
def test_outage_of_logs_alone_loses_no_log(play: Play, answer: Answer) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, 2000, answer, is_log)
        results = await session.run("fits", IMAGE, replicas=3)
        assert results.ok
        assert ["line\n"] * 3 == [finished.log for finished in results.values]
        assert [] == transport.server.sessions()

    play(scenario, log=lambda *_: "line\n")


@pytest.mark.parametrize("answer", ROUTER)
def test_follow_survives_a_router_without_a_server(play: Play, answer: Answer) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        created = await session.create("fits", IMAGE, replicas=2)
        transport.add(10, 200, answer)
        async with session.follow(created) as lines:
            items = [item async for item in lines]
        assert ["line"] * 2 == [item.text for item in items if isinstance(item, kaleden.LogLine)]
        assert 2 == len(items)

    play(scenario, duration=60, log=lambda *_: "line\n")


@pytest.mark.parametrize("seconds", [45, 60, 300, 3600])
@pytest.mark.parametrize("concurrency", [1, 32])
def test_retry_after_does_not_extend_an_outage_of_logs(
    play: Play, seconds: int, concurrency: int
) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, DAY, text("busy", 503, **{"retry-after": str(seconds)}), is_log)
        results = await session.run("fits", IMAGE, replicas=4)
        assert {FailureKind.UNAVAILABLE: 4} == results.counts()
        assert 4 == len(transport.server.sessions())
        # A list that was paused before the first failure may wait for the end of one pause.
        assert anyio.current_time() < 120 + min(seconds, 300)

    play(scenario, duration=20, client={"outage_timeout": 30, "concurrency": concurrency})


@pytest.mark.parametrize("answer", [BUSY, REFUSED, text("no", 403), UNREACHABLE])
def test_batch_is_not_given_up_in_an_outage(play: Play, answer: Answer) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        # The sessions start in the outage, which begins when they should have started.
        transport.add(19, DAY, answer)
        results = await session.run("fits", IMAGE, replicas=3, min_started=1, start_timeout=20)
        assert 3 == len(results.failures)
        assert FailureKind.PENDING_TIMEOUT not in results.counts()
        assert 3 == len(transport.server.sessions())
        assert 0 == transport.server.requests["destroy"]

    play(scenario, start_delay=20, duration=10**6, client={"outage_timeout": 600})


def test_session_with_a_result_is_ended_after_further_outages(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        for begin, end in ((60, 1000), (1100, 2000), (2100, 3000)):
            transport.add(begin, end, BUSY)
        results = await session.run("fits", IMAGE, replicas=3)
        for end in (1050, 2050, 3050):
            assert ["fits-1"] == list(results.successes)
            assert 3 == len(transport.server.sessions())
            await anyio.sleep_until(end)
            results = await results.retry_failed()
        assert results.ok
        assert 3 == transport.server.created.total()
        assert [] == transport.server.sessions()

    def duration(session: Session) -> float:
        return 20 if "-1-" in session.spec.name else 3100

    play(scenario, duration=duration, client={"outage_timeout": 600})


@pytest.mark.parametrize("answer", [BUSY, UNREACHABLE, NO_BACKEND, REFUSED])
def test_launches_that_an_outage_prevents_are_made_after_it(play: Play, answer: Answer) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        await session.fetch()
        transport.add(1, 500, answer)
        results = await session.run("fits", IMAGE, replicas=30)
        assert results.ok
        assert [f"fits-{n}" for n in range(1, 31)] == [outcome.key for outcome in results]
        assert {1} == set(transport.server.created.values())
        assert 500 < anyio.current_time()
        assert [] == transport.server.sessions()

    play(scenario, duration=60, client={"create_concurrency": 2})


@pytest.mark.parametrize("has_connected", [False, True])
def test_launches_that_are_refused_without_an_outage_fail(play: Play, has_connected: bool) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        if has_connected:
            await session.fetch()
        transport.add(0, DAY, BUSY, is_create)
        results = await session.run("fits", IMAGE, replicas=3)
        assert {FailureKind.UNAVAILABLE: 3} == results.counts()
        assert anyio.current_time() < 60

    play(scenario)


def test_launches_fail_at_the_end_of_outage_timeout(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        await session.fetch()
        transport.add(0, DAY, UNREACHABLE)
        results = await session.run("fits", IMAGE, replicas=3)
        assert {FailureKind.CONNECT_FAILED: 3} == results.counts()
        assert 600 < anyio.current_time() < 800

    play(scenario, client={"outage_timeout": 600})


@pytest.mark.parametrize("first", [0, 1])
def test_empty_lists_between_failures_end_no_session(play: Play, first: int) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        numbers = itertools.count(first)

        def is_every_other_list(request: Request) -> bool:
            return is_list(request) and next(numbers) % 2 == 0

        transport.add(20, 300, BUSY, is_every_other_list)
        transport.add(20, 300, data([]), is_list)
        results = await session.run("fits", IMAGE, replicas=3)
        assert results.ok
        assert 3 == transport.server.created.total()

    play(scenario, duration=400)


def test_outage_of_logs_is_waited_for_once(play: Play) -> None:
    async def scenario(transport: OutageTransport, session: kaleden.AsyncSession) -> None:
        transport.add(0, DAY, BROKEN, is_log)
        results = await session.run("fits", IMAGE, replicas=6)
        assert 6 == len(results.failures) == len(transport.server.sessions())
        assert 600 < anyio.current_time() < 800

    play(scenario, client={"outage_timeout": 600, "concurrency": 2})
