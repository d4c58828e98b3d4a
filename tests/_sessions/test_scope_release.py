"""Scopes that release their sessions at the end of the block."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind
from kaleden._sessions._ledger._file import read_ledger
from kaleden._sessions._ledger._ledger import Ledger
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual

Scenario = Callable[[MemoryTransport, kaleden.AsyncSession], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture(params=PLAIN_BACKENDS)
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scenario in virtual time, on a platform with faults."""

    def play(scenario: Scenario, *faults: Fault, latency: Any = None, **options: Any) -> None:
        async def main() -> None:
            speed = {} if latency is None else {"latency": latency}
            async with (
                MemoryTransport(faults=FaultPlan(faults), duration=10**6, **speed) as transport,
                kaleden.AsyncSession(transport=transport, **options) as session,
            ):
                await scenario(transport, session)

        run_virtual(main, backend=request.param)

    return play


def test_error_releases_sessions_and_names_them(
    play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger"

    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with pytest.raises(ValueError, match="mine") as caught:
            async with session.scope(on_error="release") as scope:
                created = await scope.create("fits", IMAGE, replicas=3)
                raise ValueError("mine")
        assert set(created.ids) == {each.id for each in transport.sessions()}
        assert ([], None) == (scope.ids, scope.error)
        [note] = caught.value.__notes__
        assert all(key in note for key in created.ids)
        assert note in caplog.text
        assert [] == read_ledger(path)

    caplog.set_level(logging.WARNING, "kaleden")
    play(scenario, ledger=path)


def test_success_destroys_sessions_although_errors_release_them(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async with session.scope(on_error="release") as scope:
            await scope.create("fits", IMAGE, replicas=2)
        assert [] == transport.sessions()

    play(scenario)


def test_cancellation_releases_the_session_of_a_create_in_flight(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with anyio.move_on_after(3) as cancel_scope:
            async with session.scope(on_error="release") as scope:
                await scope.create("fits", IMAGE)
        assert cancel_scope.cancelled_caught
        [left] = transport.sessions()
        assert ([], None) == (scope.ids, scope.error)
        assert f"released the sessions ['{left.id}']" in caplog.text

    caplog.set_level(logging.WARNING, "kaleden")
    play(scenario, latency={"create": 5.0})


def test_success_logs_the_session_of_a_create_in_flight(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        async def launch_concurrently() -> None:
            with suppress(kaleden.ScopeClosed):
                await scope.create("late", IMAGE)

        async with anyio.create_task_group() as group:
            async with session.scope(on_success="release") as scope:
                [known] = (await scope.create("fits", IMAGE)).ids
                group.start_soon(launch_concurrently)
                await anyio.sleep(1)
        [late] = {each.id for each in transport.sessions()} - {known}
        assert [f"the scope released the sessions ['{late}']"] == caplog.messages

    caplog.set_level(logging.WARNING, "kaleden")
    play(scenario, latency={"create": 5.0})


def test_error_names_released_sessions_although_the_grace_period_ends(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_for_the_lock(*_: object) -> None:
        await anyio.sleep(5)

    async def scenario(_: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="mine") as caught:
            async with session.scope(grace=1, on_error="release") as scope:
                created = await scope.create("fits", IMAGE, replicas=3)
                patch.setattr(Ledger, "record_ended", wait_for_the_lock)
                raise ValueError("mine")
        [note] = caught.value.__notes__
        assert all(key in note for key in created.ids)
        assert note in caplog.text

    caplog.set_level(logging.WARNING, "kaleden")
    play(scenario, ledger=tmp_path / "ledger")


def test_error_names_launches_of_unknown_outcome(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with pytest.raises(RuntimeError) as caught:
            async with session.scope(on_error="release") as scope:
                created = await scope.create("fits", IMAGE, replicas=2)
                assert {FailureKind.UNKNOWN_EFFECT: 1} == created.counts()
                raise RuntimeError
        note = "\n".join(caught.value.__notes__)
        assert created.ids[0] in note
        names = {each.spec.name for each in transport.sessions() if each.id not in created.ids}
        assert 1 == len(names)
        assert all(name in note for name in names)
        assert scope.error is None

    lost, stuck = Fault(FaultKind.HALF_BODY, "create", nth=2), Fault(FaultKind.STALL, "list")
    play(scenario, lost, stuck, settle=1)


def test_run_releases_sessions_when_an_error_leaves_it(play: Play) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        with anyio.move_on_after(60):
            await session.run("fits", IMAGE, replicas=2, on_error="release")
        assert 2 == len(transport.sessions())

    play(scenario)


@pytest.mark.parametrize("name", ["on_success", "on_error"])
@pytest.mark.parametrize("action", ["keep", "", None, True])
def test_unknown_action_is_refused(play: Play, name: str, action: Any) -> None:
    async def scenario(transport: MemoryTransport, session: kaleden.AsyncSession) -> None:
        arguments: Any = {name: action}
        with pytest.raises(kaleden.ConfigurationError, match=f"{name} is 'destroy' or 'release'"):
            session.scope(**arguments)
        with pytest.raises(kaleden.ConfigurationError):
            await session.run("fits", IMAGE, **arguments)
        assert not transport.requests

    play(scenario)
