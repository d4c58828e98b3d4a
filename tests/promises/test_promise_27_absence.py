"""No session is reported gone because of one list, or before its create has settled."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest

pytest.importorskip("anycorn")

from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden import FailureKind
from kaleden._wire import Request, Response
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from outages import is_list
from promises.loops import VirtualLoop
from support import IMAGE

COUNT = 4
SETTLE = 30.0


@define(eq=False)
class LaggingTransport:
    """A platform with several copies of its list, each of which lags by another time.

    Now and then a list is empty, or one of its elements cannot be identified.
    """

    server: MemoryTransport
    lags: list[float]
    broken: float
    source: random.Random = field(factory=random.Random)
    was_broken: bool = False

    async def send(self, request: Request) -> Response:
        """Send a request; a list is one of the copies."""
        if not is_list(request):
            return await self.server.send(request)

        lag = self.source.choice(self.lags)
        late = [Fault(FaultKind.LAG, "list", seconds=lag)] if lag else []
        # The longest lag bounds the history that the platform keeps.
        longest = [Fault(FaultKind.LAG, "stats", seconds=max(self.lags))]
        self.server.faults = FaultPlan([*late, *longest])
        response = await self.server.send(request)
        # Two broken lists in a row would be a platform whose lists are of no use.
        self.was_broken = not self.was_broken and self.source.random() < self.broken
        return self.break_list(response) if self.was_broken else response

    def break_list(self, response: Response) -> Response:
        sessions: list[Any] = json.loads(response.body)
        if sessions and self.source.random() < 0.5:
            sessions[self.source.randrange(len(sessions))] = {"type": "headless"}
        else:
            sessions = []
        return evolve(response, body=json.dumps(sessions).encode())


def count_alive(server: MemoryTransport, ids: list[str]) -> set[str]:
    """Return those of the sessions that are on the platform and can run."""
    ended = {"Completed", "Failed", "Terminating"}
    return {each.id for each in server.sessions() if each.status not in ended} & set(ids)


plans = st.fixed_dictionaries(
    {
        "lags": st.lists(st.sampled_from([0.0, 0.5, 3.0, 10.0, 28.0]), min_size=1, max_size=3),
        "broken": st.sampled_from([0.0, 0.2, 0.5]),
        "ignored": st.sets(st.integers(1, 2 * COUNT), max_size=COUNT),
        "seed": st.integers(0, 2**16),
    }
)


def draw_age(plan: dict[str, Any]) -> float:
    """Draw the age of the sessions when they are deleted.

    Two lists a second apart are a proof for a session that one copy of the list has shown. If
    another copy is from before its create, they are not.
    """
    youngest = max(plan["lags"]) + 1 if len(set(plan["lags"])) > 1 else 0.0
    return youngest + float(plan["seed"] % 50)


def start(plan: dict[str, Any], **options: Any) -> LaggingTransport:
    server = MemoryTransport(**options)
    return LaggingTransport(server, plan["lags"], plan["broken"], random.Random(plan["seed"]))


async def leave_scope(plan: dict[str, Any]) -> None:
    transport = start(plan, duration=10**6)
    async with transport.server as server:
        ignored = Fault(FaultKind.LIE, "destroy", nth=plan["ignored"])
        lost = IgnoredDeletes(transport, ignored.nth or frozenset())
        async with kaleden.AsyncSession(transport=lost, settle=SETTLE) as session:
            scope = session.scope(grace=120)
            created: list[str] = []
            try:
                async with scope:
                    created = (await scope.create("fits", IMAGE, replicas=COUNT)).ids
                    await anyio.sleep(draw_age(plan))
            except kaleden.ScopeError as error:
                assert count_alive(server, created) <= set(error.survivors)
            else:
                assert set() == count_alive(server, created)


@define(eq=False)
class IgnoredDeletes:
    """Answers some deletes without effect, by their numbers."""

    transport: LaggingTransport
    numbers: Any
    count: int = 0

    async def send(self, request: Request) -> Response:
        """Send a request, unless it is one of those deletes."""
        if request.method == "DELETE":
            self.count += 1
            if self.count in self.numbers:
                return Response(200)
        return await self.transport.send(request)


async def destroy(plan: dict[str, Any]) -> None:
    transport = start(plan, duration=10**6)
    async with transport.server as server:
        lost = IgnoredDeletes(transport, plan["ignored"])
        async with kaleden.AsyncSession(transport=lost, settle=SETTLE) as session:
            created = await session.create("fits", IMAGE, replicas=COUNT)
            await anyio.sleep(draw_age(plan))
            outcomes = await session.destroy(created)
            assert not count_alive(server, created.ids) & set(outcomes.successes)
            assert {FailureKind.NOT_DESTROYED} >= set(outcomes.counts())


async def wait(plan: dict[str, Any]) -> None:
    def duration(session: Session) -> float:
        return 20.0 + 30.0 * int(session.spec.name[-1])

    transport = start(plan, duration=duration)
    async with (
        transport.server,
        kaleden.AsyncSession(transport=transport, settle=SETTLE) as session,
    ):
        created = await session.create("fits", IMAGE, replicas=COUNT)
        assert (await session.wait(created)).ok
        assert 0 == transport.server.requests["destroy"]


@pytest.mark.parametrize("program", [leave_scope, destroy, wait])
def test_lists_that_lag_or_are_broken_end_no_session(
    virtual: VirtualLoop, count_trials: Callable[[int], None], program: Any
) -> None:
    examples = 0

    @settings(max_examples=40, deadline=None)
    @given(plans)
    def search(plan: dict[str, Any]) -> None:
        nonlocal examples
        examples += 1
        virtual.run(program, plan)

    search()
    count_trials(examples)


@pytest.mark.parametrize("lag", [3.0, 29.0])
def test_run_waits_for_sessions_that_are_listed_late(virtual: VirtualLoop, lag: float) -> None:
    async def main() -> None:
        late = FaultPlan([Fault(FaultKind.LAG, "list", seconds=lag)])
        async with (
            MemoryTransport(faults=late, duration=60) as server,
            kaleden.AsyncSession(transport=server) as session,
        ):
            assert (await session.run("fits", IMAGE, replicas=COUNT)).ok
            assert [] == server.sessions()

    virtual.run(main)


def test_prompt_scope_is_left_soon(virtual: VirtualLoop) -> None:
    async def main(duration: float, wait: bool) -> tuple[float, int]:
        async with (
            MemoryTransport(duration=duration) as server,
            kaleden.AsyncSession(transport=server) as session,
        ):
            async with session.scope() as scope:
                await scope.create("fits", IMAGE, replicas=50)
                if wait:
                    await scope.wait()
                before, left_at = server.requests["list"], anyio.current_time()
            assert [] == server.sessions()
            return anyio.current_time() - left_at, server.requests["list"] - before

    seconds, lists = virtual.run(main, 10**6, False)
    assert seconds < 2
    # One before the deletes, and two that prove them.
    assert 3 == lists
    seconds, lists = virtual.run(main, 5.0, True)
    assert seconds < 0.2
    assert 1 == lists
