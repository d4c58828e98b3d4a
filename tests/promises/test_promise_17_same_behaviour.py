"""A program behaves in the same way on every event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.conftest import LOOPS
from promises.loops import VIRTUAL_LOOPS
from support import IMAGE, data, session_id, session_object, session_on, text

PLANS = {
    "calm": [],
    "responses are lost": [Fault(FaultKind.RESET_AFTER, "create", nth=3)],
    "deletes lie": [Fault(FaultKind.LIE, "destroy", nth={1, 4})],
    "mangled": [Fault(FaultKind.GARBAGE, "info", nth=2), Fault(FaultKind.HTML, "logs", nth=5)],
}


def describe_outcomes(outcomes: kaleden.Outcomes[Any]) -> list[tuple[str, object]]:
    """Return each key with its value, or with the kind and message of its failure."""
    return [
        (each.key, each.value if isinstance(each, kaleden.Success) else (each.kind, each.message))
        for each in outcomes
    ]


async def run_program(faults: list[Fault]) -> list[object]:
    """Launch, wait for, read and destroy sessions; return a record of all results."""
    record: list[object] = []
    async with (
        # One request at a time, so that faults do not depend on the order of tasks.
        MemoryTransport(faults=FaultPlan(faults), log=lambda *_: "a line\n") as world,
        kaleden.AsyncSession(transport=world, concurrency=1) as session,
    ):
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=5)
            record.append([outcome.key for outcome in created])
            # Leave the values out: the names end in random tokens.
            ended = await scope.wait(created.ids)
            record.append([(each.key, each.ok) for each in ended])
            record.append(describe_outcomes(await session.logs(created.ids)))
            record.append([(each.key, each.ok) for each in await session.info(created.ids)])
            record.append(describe_outcomes(await session.destroy([*created.ids, "nobody", "a/b"])))
        # The number of polls is random on each loop.
        del world.requests["list"]
        record.append((sorted(world.requests.items()), len(world.sessions())))
        record.append(world.created.total())
    return record


@pytest.mark.parametrize("plan", PLANS)
def test_program_behaves_the_same_in_virtual_time(
    plan: str, count_trials: Callable[[int], None]
) -> None:
    first, *others = [loop.run(run_program, PLANS[plan]) for loop in VIRTUAL_LOOPS]
    assert all(first == other for other in others)
    count_trials(len(VIRTUAL_LOOPS))


async def call_methods() -> list[object]:
    async def respond(request: kaleden._wire.Request) -> kaleden._wire.Response:
        if request.target == "session":
            return data([session_object("a"), 7, session_object("b", status="New")])
        if session_id(request) == "c":
            return text("session c not found", 404)
        return data(session_object(session_id(request)))

    session, transport = session_on(respond, settle=0.01)
    async with session:
        record: list[object] = [[info.id for info in await session.fetch()]]
        record.append(describe_outcomes(await session.info(["a", "b", "c", "a", "/"])))
        record.append(describe_outcomes(await session.destroy("d")))
        async with session.stream.info(iter("abc")) as results:
            record.append(sorted([(each.key, each.ok) async for each in results]))
        try:
            (await session.info("c")).raise_on_failure()
        except* kaleden.NotFound as group:
            record.append(str(group.exceptions[0]))
    # The number of lists that look for a deleted session depends on the time.
    return [*record, sum(request.target != "session" for request in transport.requests)]


def test_program_behaves_the_same_in_real_time(count_trials: Callable[[int], None]) -> None:
    records = []
    for loop in LOOPS:
        backend, options = cast("tuple[str, dict[str, Any]]", loop.values[0])
        records.append(anyio.run(call_methods, backend=backend, backend_options=options))
    assert all(records[0] == record for record in records)
    count_trials(len(records))
