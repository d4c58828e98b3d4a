"""An outage ends no work: nothing is deleted or reported lost because the server was away."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from outages import BAD_GATEWAY, BUSY, HTML, REFUSED, OutageTransport
from promises.loops import VirtualLoop
from support import IMAGE

HOUR = 3600.0
SESSIONS = 500
OUTAGES = [(2 * HOUR, 120.0), (9 * HOUR, 1200.0), (15 * HOUR, 3000.0)]
REFUSALS = [(5 * HOUR, 300.0), (20 * HOUR, 600.0)]


async def pass_a_day(count_trials: Callable[[int], None]) -> None:
    source = random.Random(0)
    lasts = {f"night-{number}": source.uniform(60, 23 * HOUR) for number in range(1, SESSIONS + 1)}

    def duration(session: Session) -> float:
        return lasts[session.spec.name.rpartition("-")[0]]

    late = FaultPlan([Fault(FaultKind.LAG, "list", seconds=30.0)])
    async with MemoryTransport(faults=late, duration=duration) as server:
        transport = OutageTransport(server)
        for (begin, seconds), answer in zip(OUTAGES, [BUSY, HTML, BAD_GATEWAY], strict=True):
            transport.add(begin, begin + seconds, answer)
        for begin, seconds in REFUSALS:
            transport.add(begin, begin + seconds, REFUSED)
        async with kaleden.AsyncSession(transport=transport) as session, session.scope() as scope:
            created = await scope.create("night", IMAGE, replicas=SESSIONS)
            assert created.ok
            ended = 0
            async with session.stream.wait(created) as results:
                async for outcome in results:
                    assert outcome.ok, outcome
                    ended += 1
            assert SESSIONS == ended
            assert 0 == server.requests["destroy"]
            assert {1} == set(server.created.values())
        assert [] == server.sessions()
        check_lists(transport)
    count_trials(SESSIONS)


def check_lists(transport: OutageTransport) -> None:
    """Check the number of lists in the day, and their distances in the outages."""
    assert len(transport.listed_at) <= 9000
    for begin, seconds in OUTAGES:
        late = [at for at in transport.listed_at if begin + 300 < at < begin + seconds]
        assert all(later - at >= 45 for at, later in pairwise(late))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_day_with_outages_loses_no_session(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    virtual.run(pass_a_day, count_trials)
