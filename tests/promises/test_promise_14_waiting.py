"""Waiting costs one list per interval for everybody, and tells within one what goes wrong."""

from __future__ import annotations

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden._sessions._monitor._poller import JITTER, MAX_INTERVAL, MIN_INTERVAL
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from programs import IMAGE
from promises.loops import Virtual

LONGEST = MAX_INTERVAL * (1 + JITTER)


async def wait_with(sessions: int, waiters: int) -> tuple[float, int]:
    """Let waiters wait for the end of sessions; how long that took, and how many lists."""
    async with (
        MemoryTransport(duration=300.0) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        created = await session.create("fits", IMAGE, replicas=sessions)
        before, began = world.requests.total(), anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(waiters):
                group.start_soon(session.wait, created.ids)
        asked = world.requests.total() - before
        return anyio.current_time() - began, asked


MANY_OF_BOTH = pytest.param(200, 50, marks=pytest.mark.slow)


@pytest.mark.parametrize(("sessions", "waiters"), [(1, 1), (200, 1), (1, 50), MANY_OF_BOTH])
def test_the_lists_are_no_more_however_many_wait(
    virtual: Virtual, sessions: int, waiters: int
) -> None:
    seconds, lists = virtual.run(wait_with, sessions, waiters)
    shortest = MIN_INTERVAL * (1 - JITTER)
    # The same bound for all: the intervals grow from the shortest to the longest by half each.
    assert lists <= 2 + seconds / (MAX_INTERVAL * (1 - JITTER)) + 3 * 8
    assert lists <= seconds / shortest


@pytest.mark.parametrize("faults", [[], [Fault(FaultKind.BUSY, "list", probability=0.3)]], ids=len)
def test_a_wrong_end_is_told_within_one_interval(virtual: Virtual, faults: list[Fault]) -> None:
    failed_at = 100.0

    def fails(session: Session) -> bool:
        return session.spec.name.endswith("-2")

    async def wait() -> tuple[float, kaleden.Failure]:
        async with (
            MemoryTransport(
                start_delay=0, duration=failed_at, fails=fails, faults=FaultPlan(faults)
            ) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=3)
            async with session.stream.wait(created.ids, "Succeeded") as results:
                async for outcome in results:
                    if isinstance(outcome, kaleden.Failure):
                        return anyio.current_time(), outcome
        raise AssertionError

    when, failure = virtual.run(wait)
    assert kaleden.FailureKind.WRONG_STATE is failure.kind
    failures_in_a_row = 1 if not faults else 4
    assert when <= failed_at + 1 + LONGEST * failures_in_a_row


def test_a_session_that_vanishes_is_told_by_the_second_list_without_it(virtual: Virtual) -> None:
    async def wait() -> tuple[float, kaleden.Failure | kaleden.Success[kaleden.SessionInfo]]:
        async with (
            MemoryTransport(duration=1e6) as world,
            kaleden.AsyncSession(transport=world) as session,
            anyio.create_task_group() as group,
        ):
            created = await session.create("fits", IMAGE)

            async def vanish() -> None:
                await anyio.sleep(100)
                await session.destroy(created)

            group.start_soon(vanish)
            [outcome] = await session.wait(created.ids)
            when = anyio.current_time()
        return when, outcome

    when, outcome = virtual.run(wait)
    assert isinstance(outcome, kaleden.Failure)
    assert kaleden.FailureKind.VANISHED is outcome.kind
    assert when <= 101 + 2 * LONGEST
