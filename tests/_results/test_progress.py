"""Progress callbacks and progress bars, including errors that a callback raises."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS, FakeTransport, described, session_id, session_on

pytest.importorskip("anycorn")

import kaleden
from kaleden import AsyncSession, FailureKind, InvalidRequest, ProgressUpdate
from kaleden.progress import rich_bars, tqdm_bars
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from virtual_time import in_virtual_time

QUICK: dict[str, Any] = {"start_delay": 0, "duration": 0.05, "latency": 0.001}
KEYS = [f"id{number}" for number in range(5)]


class CallbackError(Exception):
    pass


def list_done(updates: list[ProgressUpdate]) -> list[int]:
    return [update.done for update in updates]


@pytest.mark.parametrize("name", ["info", "logs", "events", "renew"])
@in_virtual_time
async def test_each_outcome_is_reported(name: str) -> None:
    async with (
        MemoryTransport(**QUICK | {"duration": 1000}) as transport,
        AsyncSession(transport=transport) as session,
    ):
        created = await session.create("fits", IMAGE, replicas=3)
        seen: list[ProgressUpdate] = []
        keys = [*created.ids, "a/b", created.ids[0]]
        outcomes = await getattr(session, name)(keys, progress=seen.append)
        assert {1, 2, 3, 4} == {*list_done(seen)}
        last = seen[-1]
        assert Counter(ok=3, invalid=1) == last
        assert (name, 4, 1, 4) == (last.operation, last.done, last.failed, last.expected)
        assert len(outcomes) == last.done
        assert f"<ProgressUpdate {name}: 4 of 4 done; {last}>" == repr(last)


async def test_expected_is_none_for_a_generator() -> None:
    async def later() -> AsyncIterator[str]:
        for key in KEYS:
            yield key

    session, _ = session_on(described)
    async with session:
        seen: list[ProgressUpdate] = []
        await session.info((key for key in KEYS), progress=seen.append)
        await session.info(later(), raw=True, progress=seen.append)
    assert [None] * 10 == [update.expected for update in seen]
    assert [1, 2, 3, 4, 5] * 2 == list_done(seen)
    assert repr(seen[-1]).startswith("<ProgressUpdate raw info: 5 done")


@in_virtual_time
async def test_deletes_are_reported_again_after_verification() -> None:
    faults = FaultPlan([Fault(FaultKind.LIE, "destroy", nth=2)])
    async with (
        MemoryTransport(faults=faults, **QUICK | {"duration": 1000}) as transport,
        # Within half a second, the delete is not repeated.
        AsyncSession(transport=transport, retry=None, settle=0.2) as session,
    ):
        seen: list[ProgressUpdate] = []
        created = await session.create("fits", IMAGE, replicas=3, progress=seen.append)
        assert [1, 2, 3] == list_done(seen)
        assert Counter(ok=3) == seen[-1]
        assert ("create", 3) == (seen[-1].operation, seen[-1].expected)
        seen.clear()
        outcomes = await session.destroy(created, progress=seen.append)
        assert 1 == len(outcomes.failures)
        assert [1, 2, 3, 3] == list_done(seen)
        assert [Counter(answered=3), Counter(ok=2, not_destroyed=1)] == seen[2:]
        assert [0, 0, 0, 1] == [update.failed for update in seen]
        seen.clear()
        await session.destroy_with("fits", None, "Running", progress=seen.append)
        assert Counter(ok=1) == seen[-1]


@in_virtual_time
async def test_run_reports_launches_and_then_sessions() -> None:
    async with (
        MemoryTransport(**QUICK) as transport,
        AsyncSession(transport=transport) as session,
    ):
        seen: list[ProgressUpdate] = []
        await session.run("fits", IMAGE, replicas=3, progress=seen.append)
        stages = list(dict.fromkeys(update.operation for update in seen))
        assert ["create", "wait"] == stages
        assert 3 == seen[-1].done == seen[-1].expected
        assert Counter(Completed=3) == seen[-1]


@in_virtual_time
async def test_invalid_id_is_counted_at_once() -> None:
    async with (
        MemoryTransport(**QUICK) as transport,
        AsyncSession(transport=transport) as session,
    ):
        created = await session.create("fits", IMAGE)
        seen: list[ProgressUpdate] = []
        await session.wait([*created.ids, "a/b"], progress=seen.append)
        assert (2, 1, 2) == (seen[-1].done, seen[-1].failed, seen[-1].expected)


def test_progress_update_survives_copy_and_pickle() -> None:
    update = ProgressUpdate({"ok": 2}, operation="info", done=2, expected=3)
    for other in (copy.copy(update), copy.deepcopy(update), pickle.loads(pickle.dumps(update))):
        assert (update, vars(update)) == (other, vars(other))
    assert "2 ok" == str(update)
    assert "<ProgressUpdate : 0 done; >" == repr(ProgressUpdate())


# --- invalid callbacks and errors ----------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda session, no: session.info(KEYS, progress=no),
        lambda session, no: session.destroy(KEYS, progress=no),
        lambda session, no: session.create("fits", IMAGE, progress=no),
        lambda session, no: session.run("fits", IMAGE, progress=no),
        lambda session, no: session.wait(KEYS, progress=no),
    ],
)
async def test_invalid_callback_is_refused_before_a_request(
    call: Callable[..., Any],
) -> None:
    session, transport = session_on(described)
    async with session:
        with pytest.raises(InvalidRequest, match="bars are opened first"):
            await call(session, tqdm_bars())
        with pytest.raises(InvalidRequest, match="not int"):
            await call(session, 3)
        with pytest.raises(InvalidRequest, match="would not be awaited"):
            await call(session, anyio.sleep)
    assert not transport.requests


def test_invalid_callback_is_refused_in_synchronous_code() -> None:
    with kaleden.Session(transport=MemoryTransport(**QUICK)) as session:
        with pytest.raises(InvalidRequest, match="bars are opened first"):
            session.create("fits", IMAGE, progress=rich_bars())  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="would not be awaited"):
            session.create("fits", IMAGE, progress=anyio.sleep)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="would not be awaited"):
            session.wait("a", until=anyio.sleep)  # type: ignore[arg-type]
        assert [] == session.fetch()


@in_virtual_time
async def test_callback_error_during_a_launch_loses_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(update: ProgressUpdate) -> None:
        if update.done == 2:
            raise CallbackError

    async with (
        MemoryTransport(**QUICK | {"duration": 1000}) as transport,
        AsyncSession(transport=transport) as session,
    ):
        with caplog.at_level(logging.WARNING, "kaleden"), pytest.raises(CallbackError):
            await session.create("fits", IMAGE, replicas=20, progress=fail)
        await transport.settled()
        made = {each.id for each in transport.sessions()}
        assert 2 <= len(made) < 20
        assert all(key in caplog.text for key in made)
        caplog.clear()
        with pytest.raises(CallbackError):
            async with session.scope() as scope:
                await scope.create("more", IMAGE, replicas=20, progress=fail)
        with pytest.raises(CallbackError):
            await session.run("more", IMAGE, replicas=20, progress=fail)
        await transport.settled()
        assert made == {each.id for each in transport.sessions()}


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_callback_in_synchronous_code_runs_in_the_calling_thread(
    backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    threads: set[threading.Thread] = set()
    seen: list[ProgressUpdate] = []

    def note(update: ProgressUpdate) -> None:
        threads.add(threading.current_thread())
        seen.append(update)

    def fail(_: ProgressUpdate) -> None:
        raise CallbackError

    transport = MemoryTransport(**QUICK | {"duration": 1000})
    with kaleden.Session(transport=transport, backend=backend) as session:
        created = session.create("fits", IMAGE, replicas=3, progress=note)
        for method in (session.info, session.logs, session.events, session.renew, session.destroy):
            method(created, progress=note)
            assert 3 == seen[-1].done
        with session.scope() as scope:
            scope.create("more", IMAGE, replicas=2, progress=note)
            assert Counter(ok=2) == seen[-1]
        session.destroy_with("fits", None, None, progress=note)
        assert {threading.current_thread()} == threads
        with caplog.at_level(logging.WARNING, "kaleden"), pytest.raises(CallbackError):
            session.create("fits", IMAGE, replicas=20, progress=fail)
        made = {info.id for info in session.fetch()}
        assert all(key in caplog.text for key in made)
        with pytest.raises(CallbackError), session.scope() as scope:
            scope.create("more", IMAGE, replicas=20, progress=fail)
        assert made == {info.id for info in session.fetch()}


def test_slow_callback_in_synchronous_code_gets_the_latest_update() -> None:
    is_first = True
    seen: list[ProgressUpdate] = []
    ended = threading.Event()

    def slow(update: ProgressUpdate) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            assert ended.wait(60)
        seen.append(update)

    async def reply(request: Any) -> Any:
        if session_id(request) == "last":
            ended.set()
        return await described(request)

    keys = [*(f"id{number}" for number in range(200)), "last"]
    with kaleden.Session(transport=FakeTransport(reply), retry=None) as session:
        assert session.info(keys, progress=slow).ok
    assert 201 == seen[-1].done
    # During the first call, all updates except those after "last" were merged into one.
    assert len(seen) < 100


# --- bars ----------------------------------------------------------------------------------------


def open_rich_bars(file: io.StringIO) -> AbstractContextManager[Any]:
    console = pytest.importorskip("rich.console")
    return rich_bars(console.Console(file=file, width=120))


def open_tqdm_bars(file: io.StringIO) -> AbstractContextManager[Any]:
    pytest.importorskip("tqdm")
    return tqdm_bars(file=file, ncols=120)


@pytest.fixture(params=[open_rich_bars, open_tqdm_bars])
def bars(request: pytest.FixtureRequest) -> Callable[[io.StringIO], AbstractContextManager[Any]]:
    return request.param  # type: ignore[no-any-return]


@in_virtual_time
async def test_bars_show_each_operation_of_their_block(bars: Callable[..., Any]) -> None:
    file = io.StringIO()
    async with (
        MemoryTransport(**QUICK) as transport,
        AsyncSession(transport=transport) as session,
    ):
        with bars(file) as progress:
            await session.run("fits", IMAGE, replicas=7, progress=progress)
            await session.info(["a/b"], progress=progress)
            await session.info(["a/b"], progress=progress)
    lines = file.getvalue().replace("\r", "\n").splitlines()
    whole = [line for line in lines if "7/7" in line]
    assert any("create" in line and "7 ok" in line for line in whole)
    assert any("wait" in line and "7 Completed" in line for line in whole)
    assert any("info" in line and "1/1" in line and "1 invalid" in line for line in lines)


def test_bars_show_operations_of_unknown_size(bars: Callable[..., Any]) -> None:
    file = io.StringIO()
    with bars(file) as progress:
        for done in (1, 2, 2, 3):
            progress(ProgressUpdate({"ok": done, "[red]\x1b": 1}, operation="logs", done=done))
    assert "3 ok, 1 [red]" in file.getvalue()
    assert "\x1b" not in file.getvalue().replace("\x1b[A", "")


def test_bars_are_closed_after_an_error(bars: Callable[..., Any]) -> None:
    file = io.StringIO()
    with pytest.raises(CallbackError):
        with bars(file) as progress:
            progress(ProgressUpdate({"quota": 1}, operation="create", done=1, failed=1, expected=2))
            raise CallbackError
    assert "1/2" in file.getvalue()
    assert FailureKind.QUOTA in file.getvalue()


@pytest.mark.parametrize(("opened", "library"), [(rich_bars, "rich"), (tqdm_bars, "tqdm")])
def test_bars_name_the_missing_extra(
    opened: Callable[[], Any], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (library, f"{library}.progress"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'kaleden\[progress\]'"):
        with opened():
            pass
