"""A program does the same on every event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from programs import IMAGE
from promises.conftest import LOOPS
from promises.loops import VIRTUAL
from support import data, session_id, session_object, session_on, text

PLANS = {
    "calm": [],
    "replies are lost": [Fault(FaultKind.RESET_AFTER, "create", nth=3)],
    "deletes lie": [Fault(FaultKind.LIE, "destroy", nth={1, 4})],
    "mangled": [Fault(FaultKind.GARBAGE, "info", nth=2), Fault(FaultKind.HTML, "logs", nth=5)],
}


def told(outcomes: kaleden.Outcomes[Any]) -> list[tuple[str, object]]:
    """Each key, and its value or what went wrong."""
    return [
        (each.key, each.value if isinstance(each, kaleden.Success) else (each.kind, each.message))
        for each in outcomes
    ]


async def live(faults: list[Fault]) -> list[object]:
    """Launch, look, read, wait and end; tell all that came of it."""
    story: list[object] = []
    async with (
        # Each request in its turn: what befalls which does not hang on the order of tasks.
        MemoryTransport(faults=FaultPlan(faults), log=lambda *_: "a line\n") as world,
        kaleden.AsyncSession(transport=world, concurrency=1) as session,
    ):
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=5)
            story.append([outcome.key for outcome in created])
            # The names end in tokens, which are drawn anew each time.
            ended = await scope.wait(created.ids)
            story.append([(each.key, each.ok) for each in ended])
            story.append(told(await session.logs(created.ids)))
            story.append([(each.key, each.ok) for each in await session.info(created.ids)])
            story.append(told(await session.destroy([*created.ids, "nobody", "a/b"])))
        # How often it is looked is left to chance, on each loop.
        del world.requests["list"]
        story.append((sorted(world.requests.items()), len(world.sessions())))
        story.append(world.created.total())
    return story


@pytest.mark.parametrize("plan", PLANS)
def test_a_program_in_virtual_time_is_told_the_same(
    plan: str, trials: Callable[[int], None]
) -> None:
    first, *others = [loop.run(live, PLANS[plan]) for loop in VIRTUAL]
    assert all(first == other for other in others)
    trials(len(VIRTUAL))


async def ask_everything() -> list[object]:
    async def reply(request: kaleden._wire.Request) -> kaleden._wire.Response:
        if request.target == "session":
            return data([session_object("a"), 7, session_object("b", status="New")])
        if session_id(request) == "c":
            return text("session c not found", 404)
        return data(session_object(session_id(request)))

    session, transport = session_on(reply)
    async with session:
        story: list[object] = [[info.id for info in await session.fetch()]]
        story.append(told(await session.info(["a", "b", "c", "a", "/"])))
        story.append(told(await session.destroy("d")))
        async with session.stream.info(iter("abc")) as results:
            story.append(sorted([(each.key, each.ok) async for each in results]))
        try:
            (await session.info("c")).raise_on_failure()
        except* kaleden.NotFound as group:
            story.append(str(group.exceptions[0]))
    return [*story, len(transport.requests)]


def test_a_program_in_real_time_is_told_the_same(trials: Callable[[int], None]) -> None:
    stories = []
    for loop in LOOPS:
        backend, options = cast("tuple[str, dict[str, Any]]", loop.values[0])
        stories.append(anyio.run(ask_everything, backend=backend, backend_options=options))
    assert all(stories[0] == story for story in stories)
    trials(len(stories))
