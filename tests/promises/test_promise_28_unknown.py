"""A launch that may have been made is reported as such, kept in the ledger, and found by `reap`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind
from kaleden._sessions._ledger._file import Event, append, encode, read_ledger
from kaleden._sessions._ledger._process import get_this_owner
from kaleden._wire import Request, Response
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from outages import is_list
from promises.loops import VirtualLoop
from support import IMAGE, text

LOST = [FaultKind.ERROR_AFTER, FaultKind.RESET_AFTER, FaultKind.HALF_BODY, FaultKind.HTML]


def hand_over(path: Path) -> list[str]:
    """Make the launches in a ledger those of a dead process; return their names."""
    launches = read_ledger(path)
    owner = evolve(get_this_owner("client"), pid=2**30)
    dead = [evolve(launch, owner=owner) for launch in launches]
    append(path, encode(Event.ENDED, launches))
    append(path, encode(Event.LAUNCHING, [each for each in dead if each.session_id is None]))
    append(path, encode(Event.LAUNCHED, [each for each in dead if each.session_id is not None]))
    return [launch.name for launch in launches]


@pytest.mark.parametrize("trouble", LOST)
def test_launch_that_lists_show_late_is_kept_and_found(
    virtual: VirtualLoop, tmp_path: Path, trouble: FaultKind
) -> None:
    path = tmp_path / "ledger"

    async def main() -> None:
        # The lists lag by more than the client expects.
        late = Fault(FaultKind.LAG, "list", seconds=100.0)
        plan = FaultPlan([Fault(trouble, "create", nth=2), late])
        async with MemoryTransport(faults=plan, duration=10**6) as world:
            options: dict[str, Any] = {"settle": 20.0, "create_timeout": 20.0, "ledger": path}
            async with kaleden.AsyncSession(
                transport=world, create_concurrency=1, **options
            ) as session:
                try:
                    async with session.scope(grace=45) as scope:
                        created = await scope.create("fits", IMAGE, replicas=3)
                        [failure] = created.failures.values()
                        assert FailureKind.UNKNOWN_EFFECT is failure.kind
                        assert "fits-2" == failure.key
                        assert "a session named fits-2-" in failure.message
                except kaleden.ScopeError:
                    pass
            [left] = [each.spec.name for each in world.sessions() if "-2-" in each.spec.name]
            assert left in {launch.name for launch in read_ledger(path)}
            hand_over(path)
            world.faults = FaultPlan()
            async with kaleden.AsyncSession(transport=world, settle=1, create_timeout=1) as later:
                assert (await later.reap(path)).ok
            assert [] == world.sessions()
            assert [] == read_ledger(path)

    virtual.run(main)


def test_wrong_id_hides_no_session(virtual: VirtualLoop, tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    class WrongId:
        async def send(self, request: Request) -> Response:
            response = await world.send(request)
            is_create = request.method == "POST" and request.target == "session"
            return text("wrong123") if is_create else response

    world = MemoryTransport(duration=10**6)

    async def main() -> None:
        async with world:
            async with kaleden.AsyncSession(transport=WrongId(), ledger=path) as session:
                async with session.scope() as scope:
                    await scope.create("fits", IMAGE)
                    await anyio.sleep(5)
                assert scope.error is None
                assert [] == world.sessions()
                with pytest.raises(ZeroDivisionError):
                    async with session.scope(on_error="release") as scope:
                        await scope.create("other", IMAGE)
                        await scope.release(reapable=True)
                        raise ZeroDivisionError
            assert 1 == len(world.sessions())
            [name] = hand_over(path)
            assert name.startswith("other-")
            async with kaleden.AsyncSession(transport=world) as later:
                assert (await later.reap(path)).ok
            assert [] == world.sessions()

    virtual.run(main)


class AnotherId:
    """Responds to each create with the id of an older session, and disturbs the lists."""

    def __init__(self, world: MemoryTransport, key: str, failing: int) -> None:
        self.world = world
        self.key = key
        self.failing = failing

    async def send(self, request: Request) -> Response:
        if is_list(request) and self.failing:
            self.failing -= 1
            await anyio.sleep(0.05)
            return text("no list now", 503)
        response = await self.world.send(request)
        is_create = request.method == "POST" and request.target == "session"
        return text(self.key) if is_create else response


@pytest.mark.parametrize("failing", [0, 3])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("owner", ["scope", "run", "dead"])
def test_id_of_another_session_ends_only_our_own(
    virtual: VirtualLoop, tmp_path: Path, owner: str, listed: bool, failing: int
) -> None:
    path = tmp_path / "ledger"

    async def main() -> None:
        async with (
            MemoryTransport(duration=10**6) as world,
            kaleden.AsyncSession(transport=world) as other,
        ):
            [key] = (await other.create("another", IMAGE)).ids
            transport = AnotherId(world, key, failing)
            async with kaleden.AsyncSession(transport=transport, ledger=path) as session:
                if listed:
                    await session.wait(key, until="Running")
                with anyio.move_on_after(100):
                    if owner == "run":
                        await session.run("fits", IMAGE)
                    else:
                        async with session.scope() as scope:
                            await scope.create("fits", IMAGE)
                            if owner == "dead":
                                await scope.release(reapable=True)
            if owner == "dead":
                hand_over(path)
                assert (await other.reap(path)).ok
            assert ["another"] == [each.spec.name for each in world.sessions()]
            assert [] == read_ledger(path)

    virtual.run(main)
