"""Whole batches in one call: launch, wait, collect the results, clean up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind, Outcomes, SessionStatus
from kaleden.local import LocalPlatform, Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual

Scenario = Callable[[MemoryTransport, kaleden.AsyncSession], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture(params=PLAIN_BACKENDS)
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scenario in virtual time, on a platform with faults."""

    def play(scenario: Scenario, *faults: Fault, **options: Any) -> None:
        async def main() -> None:
            async with (
                MemoryTransport(faults=FaultPlan(faults), **options) as transport,
                kaleden.AsyncSession(transport=transport) as session,
            ):
                await scenario(transport, session)

        run_virtual(main, backend=request.param)

    return play


def get_number(session: Session) -> int:
    return int(session.spec.name.split("-")[1])


def is_every_fifth(session: Session) -> bool:
    return get_number(session) % 5 == 0


def write_log(session: Session, seconds: float) -> str:
    return f"replica {get_number(session)}\n" * (int(seconds) + 1)


def test_results_are_in_order_with_logs_and_events(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        seen: list[kaleden.ProgressUpdate] = []
        results = await session.run("fits", IMAGE, replicas=20, progress=seen.append)
        assert [f"fits-{n}" for n in range(1, 21)] == [outcome.key for outcome in results]
        assert ["fits-5", "fits-10", "fits-15", "fits-20"] == list(results.failures)
        for name, finished in results.successes.items():
            assert SessionStatus.COMPLETED == finished.info.status
            assert finished.info.name.startswith(f"{name}-")
            assert f"replica {name[5:]}\n" * 11 == finished.log
            assert finished.events
            assert finished.elapsed > 10
        for name, failure in results.failures.items():
            assert FailureKind.SESSION_FAILED == failure.kind
            assert failure.message.endswith(f"replica {name[5:]}")
        assert [] == transport.sessions()
        assert {1} == set(transport.created.values())
        assert 0 == transport.requests["info"]
        assert Counter({SessionStatus.COMPLETED: 16, SessionStatus.FAILED: 4}) == seen[-1]

    play(scenario, fails=is_every_fifth, log=write_log)


def test_results_survive_json(play: Play) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        results = await session.run("fits", IMAGE, replicas=5)
        assert results == Outcomes.from_json(results.to_json())

    play(scenario, fails=is_every_fifth, log=write_log)


def test_deadline_destroys_all_sessions(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        for seconds in (0.1, 0.7, 3, 8, 11.5):
            with anyio.move_on_after(seconds) as scope:
                await session.run("fits", IMAGE, replicas=20)
            assert scope.cancelled_caught
            await transport.settled()
            assert [] == transport.sessions()

    play(scenario)


def test_on_success_release_keeps_the_sessions(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        results = await session.run("fits", IMAGE, replicas=3, on_success="release")
        kept = {finished.info.id for finished in results.values}
        assert kept == {session.id for session in transport.sessions()}

    play(scenario)


def test_batch_that_does_not_start_is_given_up(play: Play) -> None:
    def start_delay(session: Session) -> float:
        return 1 if get_number(session) <= 3 else 10**6

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        results = await session.run("fits", IMAGE, replicas=10, min_started=5, start_timeout=60)
        assert ["fits-1", "fits-2", "fits-3"] == list(results.successes)
        assert {FailureKind.PENDING_TIMEOUT} == set(results.counts())
        assert "3 of 10 had started after 60 seconds, and 5" in results.failures["fits-4"].message
        assert [] == transport.sessions()
        enough = session.run("fits", IMAGE, replicas=10, min_started=3, start_timeout=60)
        with anyio.move_on_after(1000) as scope:
            await enough
        assert scope.cancelled_caught

    play(scenario, start_delay=start_delay)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_started": 3},
        {"start_timeout": 3},
        {"min_started": 0, "start_timeout": 3},
        {"min_started": 6, "start_timeout": 3},
        {"min_started": 3, "start_timeout": 0},
        {"name": "Upper"},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_before_any_request(
    play: Play, arguments: dict[str, Any]
) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with pytest.raises(kaleden.InvalidRequest):
            await session.run(**{"name": "fits", "image": IMAGE, "replicas": 5, **arguments})
        assert not transport.requests

    play(scenario)


def test_unreadable_log_is_a_failure(play: Play) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        results = await session.run("fits", IMAGE)
        [failure] = results.failures.values()
        assert FailureKind.SERVER_ERROR == failure.kind
        assert "the session is Completed, and its log could not be read" in failure.message

    play(scenario, Fault(FaultKind.ERROR_BEFORE, "logs"))


def test_failed_launches_are_among_the_results(play: Play) -> None:
    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        results = await session.run("fits", IMAGE, replicas=3)
        assert {FailureKind.UNAVAILABLE: 1} == results.counts()
        assert 3 == len(results)

    play(scenario, Fault(FaultKind.BUSY, "create", nth=2))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_run_of_two_hundred_processes_reports_five_failures() -> None:
    number = "__import__('os').environ['REPLICA_ID']"
    program = f"__import__('sys').exit(print('replica',{number})or(int({number})%40==0))"
    async with (
        LocalPlatform(cores=64) as platform,
        kaleden.AsyncSession(platform.url, platform.token) as session,
    ):
        with anyio.fail_after(600):
            results = await session.run(
                "real", IMAGE, cmd="python3", args=["-S", "-c", program], replicas=200
            )
        assert (195, 5) == (len(results.successes), len(results.failures))
        assert {f"real-{n}" for n in (40, 80, 120, 160, 200)} == set(results.failures)
        for name, finished in results.successes.items():
            assert f"replica {name[5:]}\n" == finished.log
        for name, failure in results.failures.items():
            assert failure.message.endswith(f"replica {name[5:]}")
        assert [] == await session.fetch()
        assert 0 == platform.statistics().processes

        with anyio.move_on_after(2) as scope:
            await session.run("real", IMAGE, cmd="sleep", args="600", replicas=200)
        assert scope.cancelled_caught
        assert [] == await session.fetch()
    assert 0 == platform.statistics().processes
