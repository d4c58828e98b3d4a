"""One verdict on an unknown id, from at most one list for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind
from kaleden.local import Platform, Settings
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual
from virtual_time import in_virtual_time

METHODS = ("info", "logs", "events", "renew", "wait", "connect")


@pytest.mark.parametrize("method", METHODS)
@in_virtual_time
async def test_unknown_id_is_not_found(method: str) -> None:
    async with (
        MemoryTransport(duration=10**6) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        created = await session.create("fits", IMAGE)
        await session.wait(created, "Running")
        before = world.requests.copy()
        outcomes = await getattr(session, method)([*created.ids, "unknown1", "unknown2"][1:])
        assert {"unknown1": "not_found", "unknown2": "not_found"} == {
            key: failure.kind for key, failure in outcomes.failures.items()
        }
        assert (world.requests - before)["list"] <= (3 if method == "wait" else 1)


@pytest.mark.parametrize("method", ["logs", "events", "renew"])
@in_virtual_time
async def test_streams_have_the_same_verdict(method: str) -> None:
    async with MemoryTransport() as world, kaleden.AsyncSession(transport=world) as session:
        ids = [f"unknown{number}" for number in range(100)]
        async with getattr(session.stream, method)(ids) as results:
            outcomes = [outcome async for outcome in results]
        assert {FailureKind.NOT_FOUND} == {outcome.kind for outcome in outcomes}
        assert 100 == len(outcomes)
        assert 1 == world.requests["list"]


@in_virtual_time
async def test_session_without_output_or_events_is_known() -> None:
    queue = Platform(Settings(millicores=1000, ram=2**30, queue=True))
    async with (
        MemoryTransport(queue, duration=10**6) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        created = await session.create("fits", IMAGE, cores=1, ram=1, replicas=3)
        assert [""] * 3 == (await session.logs(created)).values
        events = await session.events(created)
        assert events.ok
        assert () in events.values


@pytest.mark.parametrize("method", ["logs", "events"])
@in_virtual_time
async def test_session_that_is_not_listed_yet_has_an_empty_result(method: str) -> None:
    late = FaultPlan([Fault(FaultKind.LAG, seconds=20.0)])
    async with (
        MemoryTransport(duration=10**6, faults=late) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        created = await session.create("fits", IMAGE)
        outcomes = await getattr(session, method)(created)
        assert outcomes.ok
        assert not outcomes.values[0]


@pytest.mark.parametrize("duration", [5, 10**6])
@pytest.mark.parametrize("method", METHODS)
@in_virtual_time
async def test_session_that_another_client_has_destroyed_is_not_found(
    method: str, duration: float
) -> None:
    async with (
        MemoryTransport(duration=duration) as world,
        kaleden.AsyncSession(transport=world) as session,
        kaleden.AsyncSession(transport=world) as other,
    ):
        # Lists without any session would be doubted for longer.
        await other.create("other", IMAGE, replicas=2)
        created = await session.create("fits", IMAGE)
        await session.wait(created, "Running")
        await anyio.sleep(60)
        await session.logs(created)
        await other.destroy(created.ids)
        await session.logs(created)
        await anyio.sleep(10)
        [failure] = await getattr(session, method)(created.ids)
        assert isinstance(failure, kaleden.Failure)
        expected = FailureKind.VANISHED if method == "wait" else FailureKind.NOT_FOUND
        assert expected is failure.kind


@in_virtual_time
async def test_list_that_fails_leaves_the_outcomes_as_they_are() -> None:
    no_lists = FaultPlan([Fault(FaultKind.ERROR_BEFORE, "list")])
    async with (
        MemoryTransport(faults=no_lists) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        assert [""] == (await session.logs("unknown1")).values
        assert (
            FailureKind.BAD_REQUEST is (await session.renew("unknown1")).failures["unknown1"].kind
        )


@pytest.mark.parametrize("method", ["logs", "events", "renew", "wait"])
@in_virtual_time
async def test_name_in_place_of_an_id_is_explained(method: str) -> None:
    async with (
        MemoryTransport(duration=10**6) as world,
        kaleden.AsyncSession(transport=world) as session,
        session.scope() as scope,
    ):
        created = await scope.create("fits", IMAGE)
        plain = await session.create("other", IMAGE)
        await scope.wait(until="Running")
        outcomes = await getattr(session, method)(["fits", "other"])
        for key, ids in (("fits", created.ids), ("other", plain.ids)):
            failure = outcomes.failures[key]
            assert FailureKind.NOT_FOUND is failure.kind
            assert failure.message.endswith(f"it is the name of session {ids[0]}")


# --- failed launches in the arguments of later calls ---------------------------------------------


@pytest.fixture(params=PLAIN_BACKENDS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return lambda function: run_virtual(function, backend=request.param)


def test_failures_of_launches_are_carried_on(run: Callable[..., Any]) -> None:
    async def main() -> None:
        refuse = FaultPlan([Fault(FaultKind.BUSY, "create", nth=2)])
        async with (
            MemoryTransport(faults=refuse, log=lambda *_: "line\n") as world,
            kaleden.AsyncSession(transport=world, create_concurrency=1) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=3)
            assert {"fits-2": FailureKind.UNAVAILABLE} == {
                key: failure.kind for key, failure in created.failures.items()
            }
            waited = await session.wait(created)
            assert not waited.ok
            assert [created.ids[0], "fits-2", created.ids[1]] == [each.key for each in waited]
            assert created.ids == waited.ids
            for method in ("info", "logs", "events"):
                # Also over the outcomes of an operation over outcomes.
                later = await getattr(session, method)(waited)
                assert ["fits-2"] == list(later.failures)
                assert "temporarily" in later.failures["fits-2"].message
                assert 2 == len(later.values)
                loaded = kaleden.Outcomes.from_json(later.to_json())
                assert list(loaded) == list(later)
                assert created.ids == loaded.ids
            async with session.stream.logs(waited) as results:
                assert 3 == len([outcome async for outcome in results])
            assert (await waited.retry_failed()).failures == waited.failures
            assert created.ids == [outcome.key for outcome in await session.destroy(waited)]

    run(main)


def test_wait_for_failed_launches_only_is_not_ok(run: Callable[..., Any]) -> None:
    async def main() -> None:
        refuse = FaultPlan([Fault(FaultKind.BUSY, "create")])
        async with (
            MemoryTransport(faults=refuse) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=2)
            waited = await session.wait(created)
            assert not waited.ok
            assert ["fits-1", "fits-2"] == list(waited.failures)
            assert 0 == len(await session.destroy(created))
            assert 0 == len(await session.connect(created))
            async with session.scope() as scope:
                assert not (await scope.wait(created)).ok
                await scope.adopt(created)
                assert [] == scope.ids
            async with session.follow(created) as lines:
                assert {"fits-1", "fits-2"} == {item.key async for item in lines}  # type: ignore[union-attr]

    run(main)


def test_launch_of_unknown_outcome_is_carried_on_everywhere(run: Callable[..., Any]) -> None:
    async def main() -> None:
        lost = FaultPlan([Fault(FaultKind.RESET_BEFORE, "create", nth=1)])
        async with (
            MemoryTransport(faults=lost) as world,
            kaleden.AsyncSession(transport=world, settle=0.5) as session,
        ):
            created = await session.create("fits", IMAGE)
            assert FailureKind.UNKNOWN_EFFECT is created.failures["fits"].kind
            for method in ("wait", "destroy", "connect"):
                outcomes = await getattr(session, method)(created)
                assert FailureKind.UNKNOWN_EFFECT is outcomes.failures["fits"].kind

    run(main)


def test_outcomes_of_a_run_name_its_sessions(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with (
            MemoryTransport(fails=lambda each: "-2-" in each.spec.name) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            results = await session.run("fits", IMAGE, replicas=2, on_success="release")
            assert {each.id for each in world.sessions()} == set(results.ids)
            [failure] = results.failures.values()
            assert failure.session in results.ids
            assert (await session.info(results)).ok
            assert (await session.destroy(results)).ok
            await anyio.sleep(1)
            assert [] == world.sessions()

    run(main)
