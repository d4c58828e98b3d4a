"""Reaping: sessions of dead owners are destroyed, and no others."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from attrs import evolve

pytest.importorskip("anycorn")

import kaleden
from kaleden import Failure, FailureKind, Outcomes
from kaleden._sessions._ledger._file import (
    Event,
    LedgerError,
    OpenLaunch,
    append,
    encode,
    read_ledger,
)
from kaleden._sessions._ledger._process import Owner, get_this_owner
from kaleden._wire._requests import build_create
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import IMAGE
from virtual_time import in_virtual_time

SERVER = "own transport"
NO_SUCH_PID = 2**22 + 1
ALIVE = get_this_owner("alive")
DEAD = evolve(get_this_owner("dead"), pid=NO_SUCH_PID)
ELSEWHERE = evolve(DEAD, host="other", boot="another")


NOW = time.time()


@pytest.fixture(autouse=True)
def stop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the time of day during a test, since virtual time does not control it."""
    monkeypatch.setattr("kaleden._sessions._reap.time", SimpleNamespace(time=lambda: NOW))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "ledger").touch()
    return tmp_path / "ledger"


@asynccontextmanager
async def open_world(
    *faults: Fault, limits: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[MemoryTransport, kaleden.AsyncSession]]:
    plan = FaultPlan(faults)
    async with (
        MemoryTransport(faults=plan, duration=float("inf"), **options) as transport,
        kaleden.AsyncSession(transport=transport, **(limits or {})) as session,
    ):
        yield transport, session


def record_launch(
    path: Path,
    token: str,
    session_id: str | None = None,
    *,
    owner: Owner = DEAD,
    server: str = SERVER,
    at: float = 0.0,
    name: str | None = None,
) -> OpenLaunch:
    """Record a launch as its owner would."""
    launch = OpenLaunch(token, name or f"fits-{token}", session_id, owner, server, at)
    append(path, encode(Event.LAUNCHED if session_id else Event.LAUNCHING, [launch]))
    return launch


async def launch_sessions(session: kaleden.AsyncSession, *names: str) -> list[str]:
    """Launch sessions with exactly these names."""
    ids: list[str] = []
    for name in names:
        ids += (await session.create(name, IMAGE)).raise_on_failure().ids
    return ids


def get_failure_kinds(outcomes: Outcomes[bool]) -> dict[str, FailureKind]:
    return {key: failure.kind for key, failure in outcomes.failures.items()}


def list_names(transport: MemoryTransport) -> list[str]:
    return sorted(session.spec.name for session in transport.sessions())


# --- destroyed sessions -------------------------------------------------------------------------


@in_virtual_time
async def test_sessions_of_a_dead_owner_are_destroyed(path: Path) -> None:
    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t1", "fits-t2")
        record_launch(path, "t1", ids[0])
        record_launch(path, "t2", ids[1])
        outcomes = await session.reap(path)
        assert (ids, [True, True]) == (outcomes.ids, outcomes.values)
        assert "<Outcomes reap: 2 ok>" == repr(outcomes)
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_launch_without_id_is_found_by_its_token(path: Path) -> None:
    async with open_world() as (transport, session):
        [found] = await launch_sessions(session, "fits-k3x9q2ab")
        record_launch(path, "k3x9q2ab")
        assert {found: True} == (await session.reap(path)).successes
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_other_sessions_are_kept(path: Path) -> None:
    others = ["fits-alive", "fits-elsewhere", "fits-server", "fits-mine", "fits-t1x", "xfits-t1"]
    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t1", *others)
        record_launch(path, "t1")
        kept = [
            record_launch(path, "alive", ids[1], owner=ALIVE),
            record_launch(path, "elsewhere", ids[2], owner=ELSEWHERE),
            record_launch(path, "server", ids[3], server="https://example.org/skaha/v1"),
        ]
        assert {ids[0]: True} == (await session.reap(path)).successes
        assert sorted(others) == list_names(transport)
        assert 1 == transport.requests["destroy"]
    assert kept == read_ledger(path)


@in_virtual_time
async def test_sessions_of_unknown_owners_are_destroyed_only_with_elsewhere(path: Path) -> None:
    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t1", "fits-t2", "fits-t3")
        record_launch(path, "t1", ids[0], owner=ELSEWHERE)
        record_launch(path, "t2", owner=ELSEWHERE)
        record_launch(path, "t3", ids[2], owner=ALIVE)
        assert 0 == len(await session.reap(path))
        assert set(ids[:2]) == set((await session.reap(path, elsewhere=True)).ids)
        assert ["fits-t3"] == list_names(transport)


@in_virtual_time
async def test_session_that_ended_by_itself_is_closed(path: Path) -> None:
    async with open_world() as (_, session):
        record_launch(path, "t1", "gone1234")
        assert {"gone1234": True} == (await session.reap(path)).successes
    assert [] == read_ledger(path)


@in_virtual_time
async def test_wrong_id_in_the_ledger_hides_no_session(path: Path) -> None:
    async with open_world() as (transport, session):
        [right] = await launch_sessions(session, "fits-t1")
        launches = [record_launch(path, "t1", "wrong123"), record_launch(path, "t2", "gone1234")]
        assert {"wrong123", "gone1234", right} == set((await session.reap(path)).successes)
        assert [] == list_names(transport)
        assert 2 == len(launches)
    assert [] == read_ledger(path)


@pytest.mark.parametrize("count", [1, 2])
@in_virtual_time
async def test_session_with_another_name_than_in_the_ledger_is_kept(path: Path, count: int) -> None:
    async with open_world() as (transport, session):
        other, *own = await launch_sessions(session, "elsewhere", *["fits-t1"] * count)
        record_launch(path, "t1", other)
        outcomes = await session.reap(path)
        assert set(own) == set(outcomes.successes)
        assert outcomes.ok
        assert ["elsewhere"] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_launch_with_the_id_of_another_session_stays_open_while_it_may_appear(
    path: Path,
) -> None:
    async with open_world() as (transport, session):
        [other] = await launch_sessions(session, "elsewhere")
        record_launch(path, "t1", other, at=NOW)
        with anyio.move_on_after(100):
            await session.reap(path)
        assert 1 == len(read_ledger(path))
        await launch_sessions(session, "fits-t1")
        assert (await session.reap(path)).ok
        assert ["elsewhere"] == list_names(transport)


@in_virtual_time
async def test_two_sessions_of_one_launch_are_both_destroyed(path: Path) -> None:
    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t1", "fits-t1")
        record_launch(path, "t1")
        assert set(ids) == set((await session.reap(path)).ids)
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_empty_ledger_costs_no_request(path: Path) -> None:
    async with open_world() as (transport, session):
        assert 0 == len(await session.reap(path))
        assert 0 == transport.requests.total()


@in_virtual_time
async def test_thousand_launches_without_ids_cost_two_lists(path: Path) -> None:
    launches = [OpenLaunch(f"t{n}", f"fits-t{n}", None, DEAD, SERVER, 0.0) for n in range(1000)]
    append(path, encode(Event.LAUNCHING, launches))
    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t3", "fits-t500")
        transport.requests.clear()
        outcomes = await session.reap(path)
        assert 1000 == len(outcomes)
        assert set(ids) < set(outcomes.ids)
        # One list to look for the sessions, one before the deletes, and two that prove the ends.
        assert {"list": 4, "destroy": 2} == transport.requests
    assert b"" == path.read_bytes()


# --- sessions that may still appear -------------------------------------------------------------


@in_virtual_time
async def test_reap_waits_for_a_create_that_the_server_still_processes(path: Path) -> None:
    latency = {"create": 60.0, "list": 0.1, "destroy": 0.1}
    async with open_world(latency=latency) as (transport, session):
        [launch] = kaleden.SessionSpec("fits-t1", IMAGE).launches()
        with anyio.move_on_after(15):
            async with anyio.create_task_group() as group:
                # Cancelled by its client, finished by the server.
                group.start_soon(transport.send, build_create(launch))
        record_launch(path, "t1", at=NOW)
        outcomes = await session.reap(path)
        assert outcomes.ok
        assert 20 < anyio.current_time() < 120
        assert 1 == transport.created["fits-t1"]
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_launch_that_never_appears_is_closed_after_the_time_for_a_create(path: Path) -> None:
    async with open_world() as (transport, session):
        record_launch(path, "t1", at=NOW - 100)
        outcomes = await session.reap(path)
        assert {"fits-t1": True} == outcomes.successes
        assert anyio.current_time() == pytest.approx(110, abs=5)
        assert transport.requests["list"] < 20
    assert [] == read_ledger(path)


@in_virtual_time
async def test_wait_for_a_launch_lasts_create_timeout_plus_settle(path: Path) -> None:
    async with MemoryTransport() as transport:
        async with kaleden.AsyncSession(
            transport=transport, create_timeout=40, settle=10
        ) as session:
            record_launch(path, "t1", at=NOW)
            await session.reap(path)
    assert anyio.current_time() == pytest.approx(50, abs=5)


@in_virtual_time
async def test_launch_time_in_the_future_does_not_extend_the_wait(path: Path) -> None:
    async with open_world(limits={"create_timeout": 15, "settle": 5}) as (_, session):
        record_launch(path, "t1", at=NOW + 10**9)
        await session.reap(path)
    assert anyio.current_time() == pytest.approx(20, abs=1)


@in_virtual_time
async def test_known_sessions_are_destroyed_before_waiting_for_others(path: Path) -> None:
    async with open_world() as (transport, session):
        [known] = await launch_sessions(session, "fits-t1")
        record_launch(path, "t1", known)
        record_launch(path, "t2", at=NOW)
        with anyio.move_on_after(30):
            await session.reap(path)
        assert [] == list_names(transport)
    assert ["t2"] == [launch.token for launch in read_ledger(path)]


# --- names without a token ----------------------------------------------------------------------


@in_virtual_time
async def test_session_with_an_ambiguous_name_is_reported_and_kept(path: Path) -> None:
    async with open_world() as (transport, session):
        [other_session] = await launch_sessions(session, "fits")
        record_launch(path, "k3x9q2ab", name="fits")
        outcomes = await session.reap(path)
        assert {"fits": FailureKind.UNKNOWN_EFFECT} == get_failure_kinds(outcomes)
        assert other_session in outcomes.failures["fits"].message
        assert ["fits"] == list_names(transport)
        assert 1 == len(read_ledger(path))
        await session.destroy(other_session)
        assert (await session.reap(path)).ok
    assert [] == read_ledger(path)


@in_virtual_time
async def test_empty_token_matches_no_name(path: Path) -> None:
    async with open_world() as (transport, session):
        await launch_sessions(session, "fits")
        record_launch(path, "", name="fits")
        assert not (await session.reap(path)).ok
        assert ["fits"] == list_names(transport)


# --- errors -------------------------------------------------------------------------------------


@in_virtual_time
async def test_session_that_could_not_be_destroyed_stays_in_the_ledger(path: Path) -> None:
    async with open_world(Fault(FaultKind.LIE, on="destroy")) as (transport, session):
        ids = await launch_sessions(session, "fits-t1", "fits-t2")
        launches = [record_launch(path, "t1", ids[0]), record_launch(path, "t2", ids[1])]
        outcomes = await session.reap(path)
        assert [FailureKind.NOT_DESTROYED] * 2 == list(get_failure_kinds(outcomes).values())
        assert launches == read_ledger(path)
        transport.faults = FaultPlan()
        assert (await session.reap(path)).ok
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_launch_with_two_sessions_is_closed_with_the_second(path: Path) -> None:
    fault = Fault(FaultKind.LIE, on="destroy", nth=1)
    async with open_world(fault, limits={"settle": 0.5}) as (transport, session):
        await launch_sessions(session, "fits-t1", "fits-t1")
        record_launch(path, "t1")
        assert 1 == len((await session.reap(path)).failures)
        assert 1 == len(read_ledger(path))
        assert (await session.reap(path)).ok
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_no_launch_is_closed_if_the_list_fails(path: Path) -> None:
    async with open_world(Fault(FaultKind.ERROR_BEFORE, on="list", nth=1)) as (_, session):
        record_launch(path, "t1", "gone1234")
        record_launch(path, "t2")
        expected = dict.fromkeys(["gone1234", "fits-t2"], FailureKind.SERVER_ERROR)
        assert expected == get_failure_kinds(await session.reap(path))
        assert 2 == len(read_ledger(path))
        assert (await session.reap(path)).ok


@in_virtual_time
async def test_invalid_id_is_a_failure_of_its_own(path: Path) -> None:
    async with open_world() as (_, session):
        record_launch(path, "t1", "../../etc")
        record_launch(path, "t2", "gone1234")
        outcomes = await session.reap(path)
        assert {"../../etc": FailureKind.INVALID} == get_failure_kinds(outcomes)
        assert {"gone1234": True} == outcomes.successes


@in_virtual_time
async def test_missing_ledger_raises_an_error(path: Path) -> None:
    path.unlink()
    async with open_world() as (_, session):
        with pytest.raises(LedgerError, match="No such file"):
            await session.reap(path)
    assert not path.exists()


@in_virtual_time
async def test_read_only_ledger_does_not_prevent_destruction(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(file: int, content: bytes) -> int:
        raise OSError(30, os.strerror(30))

    async with open_world() as (transport, session):
        ids = await launch_sessions(session, "fits-t1")
        record_launch(path, "t1", ids[0])
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "kaleden"):
            patch.setattr("kaleden._sessions._ledger._file._write", read_only)
            assert (await session.reap(path)).ok
        assert [] == list_names(transport)
        assert "Read-only file system" in caplog.text
        assert 1 == len(read_ledger(path))
        assert (await session.reap(path)).ok
    assert [] == read_ledger(path)


async def test_concurrent_reapers_do_not_interfere(path: Path) -> None:
    results: list[Outcomes[bool]] = []

    async def reap(session: kaleden.AsyncSession) -> None:
        results.append(await session.reap(path))

    async with open_world(latency=0, limits={"settle": 3.0}) as (transport, session):
        ids = await launch_sessions(session, *(f"fits-t{n}" for n in range(6)))
        for number, session_id in enumerate(ids):
            record_launch(path, f"t{number}", session_id if number % 2 else None)
        async with (
            kaleden.AsyncSession(transport=transport, settle=3.0) as other,
            anyio.create_task_group() as group,
        ):
            group.start_soon(reap, session)
            group.start_soon(reap, other)
        assert [True, True] == [outcomes.ok for outcomes in results]
        assert [] == list_names(transport)
    assert [] == read_ledger(path)


@in_virtual_time
async def test_cancelled_reaper_leaves_the_rest_to_the_next(path: Path) -> None:
    async with open_world(latency=0.1) as (transport, session):
        ids = await launch_sessions(session, *(f"fits-t{n}" for n in range(4)))
        for tenths in range(12):
            for number, session_id in enumerate(ids):
                record_launch(path, f"t{number}", session_id if number % 2 else None)
            with anyio.move_on_after(tenths / 10 + 0.05):
                await session.reap(path)
            left = {launch.name for launch in read_ledger(path)}
            assert set(list_names(transport)) <= left
        assert (await session.reap(path)).ok
        assert [] == list_names(transport)


async def test_closed_client_refuses_to_reap(path: Path) -> None:
    async with MemoryTransport() as transport:
        async with kaleden.AsyncSession(transport=transport) as session:
            pass
        with pytest.raises(kaleden.SessionNotOpen):
            await session.reap(path)


@in_virtual_time
async def test_outcomes_of_reap_survive_json(path: Path) -> None:
    fault = Fault(FaultKind.LIE, on="destroy", nth=1)
    async with open_world(fault, limits={"settle": 0.5}) as (_, session):
        ids = await launch_sessions(session, "fits-t1", "fits-t2")
        for token, session_id in zip(["t1", "t2"], ids, strict=True):
            record_launch(path, token, session_id)
        outcomes = await session.reap(path)
    assert list(outcomes) == list(Outcomes.from_json(outcomes.to_json()))
    assert [Failure] == [type(failure) for failure in outcomes.failures.values()]
