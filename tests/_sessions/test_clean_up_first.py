"""The clean-up of a scope is served before all other requests, within the limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from attrs import define

from support import IMAGE, PLAIN_BACKENDS, text

pytest.importorskip("anycorn")

import kaleden
from kaleden._wire import Request, Response
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual

Play = Callable[..., None]


@pytest.fixture(params=PLAIN_BACKENDS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def run(function: Callable[..., Any], *args: Any) -> Any:
        return run_virtual(function, *args, backend=request.param)

    return run


@pytest.mark.parametrize("reads", ["info", "logs", "events"])
@pytest.mark.parametrize("concurrency", [1, 2, 8, 32])
def test_stalled_reads_do_not_delay_the_clean_up(
    run: Callable[..., Any], concurrency: int, reads: str
) -> None:
    async def main() -> None:
        async with (
            MemoryTransport(duration=10**6) as world,
            kaleden.AsyncSession(
                transport=world, concurrency=concurrency, timeout=300, retry=None
            ) as session,
            anyio.create_task_group() as group,
        ):
            async with session.scope() as scope:
                created = await scope.create("fits", IMAGE, replicas=5)
                world.faults = FaultPlan([Fault(FaultKind.STALL, reads)])
                ids = [f"id{number}" for number in range(100)]
                group.start_soon(getattr(session, reads), ids)
                await anyio.sleep(1)
                assert concurrency == world.in_flight
                left_at = anyio.current_time()
            assert scope.error is None
            assert not {each.id for each in world.sessions()} & set(created.ids)
            assert anyio.current_time() - left_at < 10
            # As many as the limit allows were ever in flight at once.
            assert concurrency == world.max_in_flight
            group.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize("retry", [kaleden.RetryPolicy(), None])
def test_displaced_read_is_sent_again(
    run: Callable[..., Any], retry: kaleden.RetryPolicy | None
) -> None:
    async def main() -> None:
        results: list[kaleden.Outcomes[kaleden.SessionInfo]] = []
        async with (
            MemoryTransport(duration=10**6) as world,
            kaleden.AsyncSession(transport=world, concurrency=1, retry=retry) as session,
            anyio.create_task_group() as group,
        ):
            other = await session.create("other", IMAGE)

            async def read() -> None:
                results.append(await session.info(other))

            async with session.scope() as scope:
                await scope.create("fits", IMAGE)
                world.faults = FaultPlan([Fault(FaultKind.STALL, "info", nth=1)])
                group.start_soon(read)
                await anyio.sleep(1)
        assert results[0].ok
        assert [1] == [outcome.attempts for outcome in results[0]]
        assert 2 == world.requests["info"]

    run(main)


def test_creates_are_never_displaced(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with (
            MemoryTransport(duration=10**6, latency={"create": 20.0}) as world,
            kaleden.AsyncSession(transport=world, concurrency=1) as session,
            anyio.create_task_group() as group,
        ):
            created: list[kaleden.Outcomes[str]] = []

            async def launch() -> None:
                created.append(await session.create("other", IMAGE))

            async with session.scope() as scope:
                await scope.create("fits", IMAGE)
                group.start_soon(launch)
                await anyio.sleep(1)
            assert scope.error is None
        assert created[0].ok
        assert 1 == world.created["other"]

    run(main)


def test_stalled_list_does_not_delay_the_clean_up(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with (
            MemoryTransport(duration=10**6) as world,
            kaleden.AsyncSession(transport=world, concurrency=2, timeout=300) as session,
            anyio.create_task_group() as group,
        ):
            async with session.scope() as scope:
                created = await scope.create("fits", IMAGE, replicas=3)
                world.faults = FaultPlan([Fault(FaultKind.STALL, "list", nth=1)])
                group.start_soon(session.wait, created)
                await anyio.sleep(1)
                left_at = anyio.current_time()
            assert scope.error is None
            assert anyio.current_time() - left_at < 3
            assert [] == world.sessions()
            group.cancel_scope.cancel()

    run(main)


def test_queued_requests_are_served_after_a_clean_up(run: Callable[..., Any]) -> None:
    order: list[str] = []
    world = MemoryTransport(duration=10**6)

    class Recorder:
        async def send(self, request: Request) -> Response:
            order.append(request.method)
            return await world.send(request)

    async def main() -> None:
        async with (
            world,
            kaleden.AsyncSession(transport=Recorder(), concurrency=1) as session,
            anyio.create_task_group() as group,
        ):
            async with session.scope() as scope:
                await scope.create("fits", IMAGE, replicas=2)
                await scope.wait(until="Running")
                order.clear()
                group.start_soon(session.info, [f"id{number}" for number in range(50)])
                await anyio.sleep(0.01)
            # One read was in flight; the deletes came next.
            assert ["GET", "DELETE"] == order[:2]

    run(main)


@define(eq=False)
class PausedServer:
    """Answers one request for a session with a ``Retry-After`` of an hour."""

    world: MemoryTransport
    is_paused: bool = False

    async def send(self, request: Request) -> Response:
        """Send a request, unless it begins the pause."""
        if request.target == "session/busy" and not self.is_paused:
            self.is_paused = True
            return text("busy", 503, **{"retry-after": "3600"})

        return await self.world.send(request)


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_pause_does_not_delay_the_clean_up(run: Callable[..., Any], concurrency: int) -> None:
    async def main() -> None:
        results: list[kaleden.Outcomes[kaleden.SessionInfo]] = []
        async with MemoryTransport(duration=10**6) as world:
            server = PausedServer(world)
            async with (
                kaleden.AsyncSession(transport=server, concurrency=concurrency) as session,
                anyio.create_task_group() as group,
            ):
                other = await session.create("other", IMAGE)

                async def read() -> None:
                    results.append(await session.info(other))

                async with session.scope() as scope:
                    await scope.create("fits", IMAGE, replicas=5)
                    await session.info("busy")
                    # Each takes a slot, and waits there for the end of the pause.
                    for _ in range(2 * concurrency):
                        group.start_soon(read)
                    await anyio.sleep(1)
                    assert session.statistics().limiter.paused > 250
                    left_at = anyio.current_time()
                assert anyio.current_time() - left_at < 2
                assert other.ids == [each.id for each in world.sessions()]
                assert [] == results
            # The reads have kept their turns, or have taken others after the pause.
            assert 2 * concurrency == len(results)
            assert all(outcomes.ok for outcomes in results)

    run(main)


def test_slow_list_does_not_delay_the_deletes_and_is_used(run: Callable[..., Any]) -> None:
    async def main() -> None:
        slow = Fault(FaultKind.DELAY, "list", seconds=5)
        async with (
            MemoryTransport(duration=10**6, faults=FaultPlan([slow])) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            async with session.scope() as scope:
                await scope.create("fits", IMAGE, replicas=3)
                left_at = anyio.current_time()
            assert [] == world.sessions()
            assert 4 >= world.requests["list"]
            # The time of three lists, and not the 30 seconds until a new session is listed.
            assert anyio.current_time() - left_at < 20

    run(main)
