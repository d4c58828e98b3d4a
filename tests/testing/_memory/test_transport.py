"""Tests of `MemoryTransport`: its time, its sessions, and its requests."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, Protocol

import anyio
import pytest

import kaleden
from kaleden import SessionSpec, SessionStatus
from kaleden._http import Transport
from kaleden._wire import Request, Response, _requests, _responses
from kaleden.local import Platform, Session, Settings
from kaleden.testing import (
    POINTS,
    REQUEST_KINDS,
    Fault,
    FaultPlan,
    MemoryTransport,
    run_virtual,
)
from kaleden.testing._clock import Backend
from kaleden.testing._requests import classify_request
from support import IMAGE, PLAIN_BACKENDS

GIB = 2**30

Main = Callable[[], Awaitable[Any]]


class Run(Protocol):
    def __call__(self, main: Main) -> Any: ...


@pytest.fixture
def run(backend: Backend) -> Run:
    return partial(run_virtual, backend=backend)


def build_create_request(name: str = "fits") -> Request:
    """Build a request that creates one session."""
    [launch] = SessionSpec(name, IMAGE, cmd="true").launches()
    return _requests.build_create(launch)


async def launch(transport: MemoryTransport, name: str = "fits") -> str:
    """Create a session and return its id."""
    return _responses.parse_create(await transport.send(build_create_request(name)))


async def fetch_statuses(transport: MemoryTransport) -> dict[str, str]:
    listing = _responses.parse_list(await transport.send(_requests.build_list()))
    return {str(session.name): str(session.status) for session in listing.sessions}


@asynccontextmanager
async def open_client(
    **options: Any,
) -> AsyncGenerator[tuple[kaleden.AsyncSession, MemoryTransport]]:
    async with MemoryTransport(**options) as transport:
        async with kaleden.AsyncSession(transport=transport) as session:
            yield session, transport


def test_memory_transport_is_a_transport() -> None:
    assert isinstance(MemoryTransport(), Transport)


def test_session_changes_status_in_virtual_time(run: Run) -> None:
    async def main() -> list[tuple[float, dict[str, str]]]:
        seen: list[tuple[float, dict[str, str]]] = []
        async with MemoryTransport(latency=0, start_delay=2, duration=30) as transport:
            await launch(transport)
            for seconds in (0, 1.5, 1, 29, 1, 3600):
                await anyio.sleep(seconds)
                seen.append((anyio.current_time(), await fetch_statuses(transport)))
        return seen

    assert [
        (0, {"fits": "Pending"}),
        (1.5, {"fits": "Pending"}),
        (2.5, {"fits": "Running"}),
        (31.5, {"fits": "Running"}),
        (32.5, {"fits": "Completed"}),
        (3632.5, {}),
    ] == run(main)


def test_session_fails_if_fails_returns_true(run: Run) -> None:
    def fails(session: Session) -> bool:
        return session.spec.name.endswith("b")

    async def main() -> dict[str, str]:
        async with MemoryTransport(fails=fails) as transport:
            await launch(transport, "a")
            await launch(transport, "b")
            await anyio.sleep(20)
            return await fetch_statuses(transport)

    assert {"a": "Completed", "b": "Failed"} == run(main)


def test_duration_can_depend_on_session(run: Run) -> None:
    def duration(session: Session) -> float:
        return float(session.spec.name.rpartition("-")[2])

    async def main() -> list[dict[str, str]]:
        async with MemoryTransport(latency=0, start_delay=0, duration=duration) as transport:
            for name in ("for-5", "for-10"):
                await launch(transport, name)
            await anyio.sleep(7)
            first = await fetch_statuses(transport)
            await anyio.sleep(7)
            return [first, await fetch_statuses(transport)]

    assert [
        {"for-5": "Completed", "for-10": "Running"},
        {"for-5": "Completed", "for-10": "Completed"},
    ] == run(main)


def test_session_with_infinite_duration_runs_until_deleted(run: Run) -> None:
    async def main() -> tuple[dict[str, str], list[Session]]:
        async with MemoryTransport(duration=math.inf) as transport:
            session_id = await launch(transport)
            await anyio.sleep(86400)
            late = await fetch_statuses(transport)
            await transport.send(_requests.build_destroy(session_id))
            return late, transport.sessions()

    assert ({"fits": "Running"}, []) == run(main)


def test_session_waits_for_free_resources(run: Run) -> None:
    async def main() -> list[dict[str, str]]:
        platform = Platform(Settings(millicores=1000, ram=8 * GIB))
        async with MemoryTransport(platform, latency=0, start_delay=1, duration=10) as transport:
            await launch(transport, "a")
            await launch(transport, "b")
            await anyio.sleep(5)
            first = await fetch_statuses(transport)
            await anyio.sleep(8)
            return [first, await fetch_statuses(transport)]

    assert [
        {"a": "Running", "b": "Pending"},
        {"a": "Completed", "b": "Running"},
    ] == run(main)


def test_deleted_session_frees_its_resources(run: Run) -> None:
    async def main() -> dict[str, str]:
        platform = Platform(Settings(millicores=1000, ram=8 * GIB))
        async with MemoryTransport(platform, latency=0, duration=math.inf) as transport:
            first = await launch(transport, "a")
            await launch(transport, "b")
            await anyio.sleep(0.5)
            await transport.send(_requests.build_destroy(first))
            await anyio.sleep(5)
            return await fetch_statuses(transport)

    assert {"b": "Running"} == run(main)


def test_log_grows_while_session_runs(run: Run) -> None:
    def log(session: Session, seconds: float) -> str:
        return "".join(f"{session.spec.name} é {n}\n" for n in range(int(seconds)))

    async def main() -> list[str]:
        seen: list[str] = []
        async with MemoryTransport(latency=0, start_delay=1, duration=3, log=log) as transport:
            session_id = await launch(transport)
            for seconds in (0.5, 2.5, 60, 60):
                await anyio.sleep(seconds)
                response = await transport.send(_requests.build_logs(session_id))
                seen.append(_responses.parse_logs(response))
        return seen

    lines = ["fits é 0\n", "fits é 1\n", "fits é 2\n"]
    assert ["", "".join(lines[:2]), "".join(lines), "".join(lines)] == run(main)


def test_async_session_works_on_memory_transport(run: Run) -> None:
    async def main() -> None:
        async with open_client(log=lambda _, __: "done\n") as (session, transport):
            created = await session.create("fits", IMAGE, cmd="true", replicas=3)
            await anyio.sleep(5)
            infos = await session.info(created)
            logs = await session.logs(created)
            events = await session.events(created)

            assert {SessionStatus.RUNNING} == {info.status for info in infos.values}
            assert ["done\n"] * 3 == logs.values
            assert events.ok
            assert (await session.availability()).available
            assert (await session.destroy(created)).ok
            assert [] == transport.sessions()

    run(main)


def test_error_response_has_message_of_server(run: Run) -> None:
    async def main() -> Response:
        async with MemoryTransport() as transport:
            return await transport.send(_requests.build_info("unknown1"))

    response = run(main)

    assert (404, b"session unknown1 not found\n") == (response.status, response.body)


def test_created_sessions_are_counted_by_name(run: Run) -> None:
    async def main() -> dict[str, int]:
        async with MemoryTransport() as transport:
            for name in ("one", "two", "two"):
                await transport.send(_requests.build_destroy(await launch(transport, name)))
            return dict(transport.created)

    assert {"one": 1, "two": 2} == run(main)


def test_requests_are_counted_by_kind_and_in_flight(run: Run) -> None:
    async def main() -> tuple[dict[str, int], int, int, str]:
        async with MemoryTransport() as transport:
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(transport.send, _requests.build_list())
                await anyio.sleep(0.01)
                group.start_soon(transport.send, _requests.build_stats())
                await anyio.sleep(0.01)
                now, shown = transport.in_flight, repr(transport)
            assert 0 == transport.in_flight
            return dict(transport.requests), now, transport.max_in_flight, shown

    shown = "<MemoryTransport: 6 in flight, 0 sessions>"
    assert ({"list": 5, "stats": 1}, 6, 6, shown) == run(main)


@pytest.mark.parametrize(
    ("latency", "seconds"),
    [({}, (0.6, 0.06)), (2.0, (2.0, 2.0)), (0, (0, 0)), ({"list": 5}, (0.6, 5)),
     ({"create": 90}, (90, 0.06))],
)  # fmt: skip
def test_latency_depends_on_kind_of_request(
    run: Run, latency: Any, seconds: tuple[float, float]
) -> None:
    async def main() -> tuple[float, float]:
        async with MemoryTransport(latency=latency) as transport:
            await launch(transport)
            created = anyio.current_time()
            await transport.send(_requests.build_list())
            return created, anyio.current_time() - created

    assert pytest.approx(seconds) == run(main)


def test_latency_for_unknown_kind_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"no kinds of request: \['creat'\]; there are"):
        MemoryTransport(latency={"creat": 1, "list": 2})


def test_request_passes_all_points_in_order(run: Run) -> None:
    points: list[tuple[str, Request]] = []
    request = build_create_request()

    async def main() -> None:
        transport = MemoryTransport(on_point=lambda point, asked: points.append((point, asked)))
        async with transport:
            await transport.send(request)

    run(main)

    assert [(point, request) for point in POINTS] == points


def cancel_at(run: Run, point: str, **options: Any) -> list[tuple[float, int]]:
    """Cancel a create request when it passes *point*.

    Returns:
        The time and number of sessions, after the cancellation and after the server has settled.
    """

    async def main() -> list[tuple[float, int]]:
        async with MemoryTransport(**options) as transport:
            with anyio.CancelScope() as scope:
                transport.on_point = lambda passed, _: scope.cancel() if passed == point else None
                await transport.send(build_create_request())
            seen = [(anyio.current_time(), len(transport.sessions()))]
            await transport.settled()
            return [*seen, (anyio.current_time(), len(transport.sessions()))]

    seen: list[tuple[float, int]] = run(main)
    return seen


@pytest.mark.parametrize(
    ("point", "then", "later"),
    [("arrived", 0, 1), ("before-effect", 0, 1), ("after-effect", 1, 1), ("before-reply", 1, 1),
     ("mid-reply", 1, 1), ("closing", 1, 1)],
)  # fmt: skip
def test_abandoned_request_finishes(run: Run, point: str, then: int, later: int) -> None:
    assert [then, later] == [count for _, count in cancel_at(run, point)]


@pytest.mark.parametrize(
    ("point", "later"), [("arrived", 0), ("before-effect", 0), ("after-effect", 1)]
)
def test_abandoned_request_dies_if_configured(run: Run, point: str, later: int) -> None:
    assert later == cancel_at(run, point, abandoned="dies")[-1][1]


def test_abandoned_request_finishes_after_delay(run: Run) -> None:
    [(left, then), (settled, later)] = cancel_at(run, "arrived", finish_delay=50)

    assert (0, 1) == (then, later)
    assert left < 1 < 50 < settled


def test_request_cancelled_before_arrival_has_no_effect(run: Run) -> None:
    async def main() -> list[Session]:
        async with MemoryTransport() as transport:
            with anyio.move_on_after(0.1):
                await transport.send(build_create_request())
            await anyio.sleep(100)
            return transport.sessions()

    assert [] == run(main)


def test_request_in_cancelled_scope_is_not_sent(run: Run) -> None:
    async def main() -> list[Session]:
        async with MemoryTransport(latency=0) as transport:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await transport.send(build_create_request())
            await anyio.sleep(1)
            return transport.sessions()

    assert [] == run(main)


def test_settled_waits_for_all_requests(run: Run) -> None:
    async def main() -> list[float]:
        async with MemoryTransport(latency=10) as transport:
            with anyio.move_on_after(5):
                async with anyio.create_task_group() as group:
                    group.start_soon(transport.send, build_create_request())
                    group.start_soon(transport.send, _requests.build_list())
            await transport.settled()
            first = anyio.current_time()
            await transport.settled()
            return [first, anyio.current_time()]

    assert pytest.approx([10, 10]) == run(main)


def test_transport_works_only_inside_its_block(run: Run) -> None:
    async def main() -> None:
        transport = MemoryTransport()
        with pytest.raises(RuntimeError, match="inside its `async with` block"):
            await transport.send(build_create_request())
        async with transport:
            await transport.send(build_create_request())
        with pytest.raises(RuntimeError, match="inside its `async with` block"):
            await transport.send(build_create_request())
        with pytest.raises(RuntimeError, match="make another"):
            async with transport:
                pass

    run(main)


def test_sessions_can_be_listed_after_the_block(backend: Backend) -> None:
    transport = MemoryTransport(duration=10)

    async def main() -> None:
        async with transport:
            await launch(transport)

    run_virtual(main, backend=backend)

    assert ["Pending"] == [session.status for session in transport.sessions()]


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_sessions_can_be_listed_from_another_thread(
    backend: Literal["asyncio", "trio"],
) -> None:
    transport = MemoryTransport(duration=10**6)
    assert [] == transport.sessions()
    with kaleden.Session(transport=transport, backend=backend) as session:
        created = session.create("fits", IMAGE, cmd="true", replicas=2)
        assert set(created.ids) == {each.id for each in transport.sessions()}
        transport.faults = FaultPlan([Fault("lag", "list", seconds=10)])
        assert 2 == len(session.fetch())
    assert set(created.ids) == {each.id for each in transport.sessions()}


def test_error_in_the_block_is_raised_unchanged(run: Run) -> None:
    async def main() -> None:
        async with MemoryTransport() as transport:
            await launch(transport)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(main)


def test_two_runs_give_the_same_sessions(backend: Backend) -> None:
    async def main() -> list[tuple[str, str, float]]:
        async with MemoryTransport() as transport:
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(transport.send, build_create_request(f"fits-{number}"))
            return [(s.id, s.spec.name, s.created) for s in transport.sessions()]

    assert run_virtual(main, backend=backend) == run_virtual(main, backend=backend)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (build_create_request(), "create"),
        (_requests.build_destroy("x"), "destroy"),
        (_requests.build_list(), "list"),
        (_requests.build_list("headless", "Running"), "list"),
        (_requests.build_list(view="all"), "list"),
        (_requests.build_info("x"), "info"),
        (_requests.build_logs("x"), "logs"),
        (_requests.build_events("x"), "events"),
        (_requests.build_renew("x"), "renew"),
        (_requests.build_stats(), "stats"),
        (_requests.build_images(), "other"),
        (_requests.build_apps("x"), "other"),
        (_requests.build_availability(), "other"),
    ],
)
def test_requests_are_classified(request_: Request, kind: str) -> None:
    assert kind == classify_request(request_)
    assert kind in REQUEST_KINDS


def test_record_of_changes_does_not_grow(run: Run) -> None:
    async def main() -> None:
        async with open_client() as (session, transport):
            created = await session.create("fits", IMAGE, cmd="true", replicas=3)
            assert (await session.destroy(created)).ok
            assert [] == transport.platform.take_changes()

    run(main)
