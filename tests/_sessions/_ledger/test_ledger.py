"""The ledger: lines are complete or absent, on the disk in time, and safe with many writers."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("anycorn")

import kaleden
from kaleden._errors import KaledenError
from kaleden._sessions._ledger import _file
from kaleden._sessions._ledger._file import (
    Event,
    LedgerError,
    OpenLaunch,
    append,
    compact,
    encode,
    fold,
    read_ledger,
)
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._ledger._process import Owner
from kaleden.testing import MemoryTransport

SERVER = "https://ws-uv.canfar.net/skaha/v1"
OWNER = Owner("login1", "3f9a", "boot", "pid:[1]", 100, "500", "a")
OTHER = evolve(OWNER, client="b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the size of the file at each flush to the disk."""
    sizes: list[int] = []
    fsync = os.fsync

    def record_and_flush(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            sizes.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", record_and_flush)
    return sizes


def build_launch(token: str, session_id: str | None = None, owner: Owner = OWNER) -> OpenLaunch:
    return OpenLaunch(token, f"fits-{token}", session_id, owner, SERVER, 1.5)


def read_open_ids(path: Path) -> dict[str, str | None]:
    return {found.token: found.session_id for found in read_ledger(path)}


# --- writing ------------------------------------------------------------------------------------


async def test_launch_is_open_from_before_its_request_until_its_end(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
        [opened] = read_ledger(path)
        assert ("t1", "fits-t1", None, SERVER) == (
            opened.token, opened.name, opened.session_id, opened.server,
        )  # fmt: skip
        await ledger.record_launched("t1", "abc")
        assert [evolve(opened, session_id="abc")] == read_ledger(path)
        await ledger.record_ended(["t1"])
        assert [] == read_ledger(path)


async def test_launch_records_its_owner(path: Path) -> None:
    async with Ledger(path, SERVER) as one, Ledger(path, SERVER) as two:
        await one.record_launching({"t1": "fits-t1"})
        await two.record_launching({"t2": "fits-t2"})
    first, second = (found.owner for found in read_ledger(path))
    assert os.getpid() == first.pid
    assert first != second
    assert evolve(first, client=second.client) == second


async def test_each_line_is_on_the_disk_before_its_call_returns(
    path: Path, flushes: list[int]
) -> None:
    async with Ledger(path, SERVER) as ledger:
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: ledger.record_launching({"t1": "fits-t1", "t2": "fits-t2"}),
            lambda: ledger.record_launched("t1", "abc"),
            lambda: ledger.record_ended(["t1", "t2"]),
        ]
        for call in calls:
            before = len(flushes)
            await call()
            assert [path.stat().st_size] == flushes[before:]


async def test_concurrent_launches_share_a_flush(path: Path, flushes: list[int]) -> None:
    async with Ledger(path, SERVER) as ledger:
        before = len(flushes)
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(ledger.record_launching, {f"t{number}": f"fits-t{number}"})
    assert 200 == len(read_ledger(path))
    assert len(flushes) - before <= 3


async def test_end_of_a_launch_that_is_not_open_writes_no_line(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
        size = path.stat().st_size
        await ledger.record_ended(["unknown"])
        await ledger.record_ended([])
        await ledger.record_launching({})
        assert size == path.stat().st_size
        await ledger.record_ended(["t1", "t1"])
        await ledger.record_ended(["t1"])
    assert 2 == len(path.read_bytes().splitlines())


async def test_clients_with_the_same_token_do_not_end_each_others_launch(path: Path) -> None:
    async with Ledger(path, SERVER) as one, Ledger(path, SERVER) as two:
        await one.record_launching({"same": "fits-same"})
        await two.record_launching({"same": "fits-same"})
        await one.record_ended(["same"])
        assert 1 == len(read_ledger(path))
        await two.record_launched("same", "abc")
    assert {"same": "abc"} == read_open_ids(path)


async def test_line_has_exactly_the_documented_fields(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
    line = json.loads(path.read_bytes())
    assert {"event", "token", "name", "session_id", "owner", "server", "at"} == set(line)
    assert {"host", "machine", "boot", "pid_namespace", "pid", "started", "client"} == set(
        line["owner"]
    )


async def test_parameters_of_a_session_are_not_in_the_ledger(path: Path) -> None:
    spec = kaleden.SessionSpec(
        "fits", "skaha/astroml:latest", cmd="cat", args="private.txt", env={"KEY": "hunter2"}
    )
    async with (
        MemoryTransport(latency=0) as transport,
        kaleden.AsyncSession(transport=transport, ledger=path) as session,
        session.scope() as scope,
    ):
        await scope.create(spec)
        assert 1 == len(read_ledger(path))
    content = path.read_text()
    assert 3 == len(content.splitlines())
    assert "fits-" in content
    assert not re.search("private|KEY|hunter2|astroml", content)


async def test_file_is_readable_by_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        async with Ledger(path, SERVER) as ledger:
            await ledger.record_launching({"t1": "fits-t1"})
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
            compact(path)
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)


async def test_relative_path_is_resolved_when_the_ledger_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Ledger("ledger", SERVER) as ledger:
        monkeypatch.chdir("/")
        await ledger.record_launching({"t1": "fits-t1"})
    assert {"t1": None} == read_open_ids(tmp_path / "ledger")


async def test_deleted_ledger_is_created_again(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
        path.unlink()
        await ledger.record_launched("t1", "abc")
    assert {"t1": "abc"} == read_open_ids(path)


async def test_repr_gives_the_number_of_open_launches(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1", "t2": "fits-t2"})
        await ledger.record_ended(["t1"])
        assert f"<Ledger {path}: 1 open>" == repr(ledger)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "message"),
    [("missing/ledger", "No such file"), (".", "Is a directory"), ("pipe", "not a regular file")],
)
async def test_ledger_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, where: str, message: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LedgerError, match=message) as caught:
        async with Ledger(tmp_path / where, SERVER):
            pass
    assert isinstance(caught.value, KaledenError)
    assert isinstance(caught.value, OSError)


def test_reading_a_missing_ledger_raises_an_error(path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        read_ledger(path)


class FullDisk:
    """A disk with a number of free bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes: float = float("inf")
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, content: memoryview) -> int:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return self._write(file, content)
        if self.free_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(file, content[: int(min(self.free_bytes, len(content)))])
        self.free_bytes -= written
        return written


async def test_failed_write_is_raised_in_every_call_that_shared_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    async def launch_and_fail(ledger: Ledger, token: str) -> None:
        with pytest.raises(LedgerError, match="No space left"):
            await ledger.record_launching({token: token})
        failed.append(token)

    async with Ledger(path, SERVER) as ledger:
        FullDisk(monkeypatch).free_bytes = 0
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(launch_and_fail, ledger, f"t{number}")
    assert 10 == len(failed)


async def test_line_after_a_partial_write_is_complete(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    async with Ledger(path, SERVER) as ledger:
        disk.free_bytes = 40
        with pytest.raises(LedgerError):
            await ledger.record_launching({"t1": "fits-t1"})
        disk.free_bytes = float("inf")
        await ledger.record_launching({"t2": "fits-t2"})
    assert {"t2": None} == read_open_ids(path)


async def test_end_that_was_not_written_can_be_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
        disk.free_bytes = 0
        with pytest.raises(LedgerError):
            await ledger.record_ended(["t1"])
        disk.free_bytes = float("inf")
        await ledger.record_ended(["t1"])
    assert [] == read_ledger(path)


def test_partial_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:7]))
    append(path, encode(Event.LAUNCHING, [build_launch("t1"), build_launch("t2")]))
    assert {"t1": None, "t2": None} == read_open_ids(path)


# --- cancellation -------------------------------------------------------------------------------


class SlowDisk:
    """A disk that flushes when the test allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy = anyio.Event()
        self.may_finish = threading.Event()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            anyio.from_thread.run_sync(self.busy.set)
            self.may_finish.wait()
        self._fsync(file)


async def test_line_is_complete_if_its_call_is_cancelled(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[str] = []

    async def launching(ledger: Ledger) -> None:
        await ledger.record_launching({"t1": "fits-t1"})
        returned.append("t1")

    async with Ledger(path, SERVER) as ledger:
        disk = SlowDisk(monkeypatch)
        async with anyio.create_task_group() as group:
            group.start_soon(launching, ledger)
            await disk.busy.wait()
            group.cancel_scope.cancel()
            disk.may_finish.set()
        assert [] == returned
        assert {"t1": None} == read_open_ids(path)
        await ledger.record_ended(["t1"])
    assert [] == read_ledger(path)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_waits_for_the_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Ledger(path, SERVER) as ledger:
        disk = SlowDisk(monkeypatch)
        task = asyncio.ensure_future(ledger.record_launching({"t1": "fits-t1"}))
        await disk.busy.wait()
        for _ in range(3):
            task.cancel()
            await anyio.lowlevel.checkpoint()
        assert not task.done()
        disk.may_finish.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert {"t1": None} == read_open_ids(path)


async def test_cancelled_call_does_not_affect_calls_that_share_its_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Ledger(path, SERVER) as ledger:
        disk = SlowDisk(monkeypatch)
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as first:
                group.start_soon(ledger.record_launching, {"t1": "fits-t1"})
                await disk.busy.wait()
                group.start_soon(ledger.record_launching, {"t2": "fits-t2"})
                group.start_soon(ledger.record_launching, {"t3": "fits-t3"})
                await anyio.wait_all_tasks_blocked()
                first.cancel()
            disk.may_finish.set()
    assert {"t1": None, "t2": None, "t3": None} == read_open_ids(path)


async def test_launch_in_a_cancelled_scope_is_not_written(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ledger.record_launching({"t1": "fits-t1"})
    assert b"" == path.read_bytes()


@pytest.mark.parametrize("method", ["launched", "ended"])
async def test_facts_are_written_in_a_cancelled_scope(path: Path, method: str) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1"})
        with anyio.CancelScope() as scope:
            scope.cancel()
            if method == "launched":
                await ledger.record_launched("t1", "abc")
            else:
                await ledger.record_ended(["t1"])
        assert scope.cancelled_caught
    assert ({"t1": "abc"} if method == "launched" else {}) == read_open_ids(path)


async def test_launch_is_written_although_all_default_threads_are_busy(
    path: Path,
) -> None:
    async with Ledger(path, SERVER) as ledger:
        limiter = anyio.to_thread.current_default_thread_limiter()
        holders = [object() for _ in range(int(limiter.total_tokens))]
        for holder in holders:
            limiter.acquire_on_behalf_of_nowait(holder)
        await ledger.record_launching({"t1": "fits-t1"})
        for holder in holders:
            limiter.release_on_behalf_of(holder)
        assert 0 == limiter.borrowed_tokens
    assert {"t1": None} == read_open_ids(path)


# --- reading ------------------------------------------------------------------------------------

LINES = [
    encode(Event.LAUNCHING, [build_launch("t1")]),
    encode(Event.LAUNCHING, [build_launch("t2", owner=OTHER)]),
    encode(Event.LAUNCHED, [build_launch("t1", "abc")]),
]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_torn_last_line_loses_only_itself(path: Path, last: int) -> None:
    whole = b"".join(LINES[:last])
    states = [fold(whole)[0], fold(whole + LINES[last])[0]]
    for length in range(len(LINES[last])):
        path.write_bytes(whole + LINES[last][:length])
        # Without its line break, the line is complete nevertheless.
        assert states[length == len(LINES[last]) - 1] == read_ledger(path)


@pytest.mark.parametrize("length", [1, 40, len(LINES[2]) - 1])
def test_line_after_a_torn_line_is_read(path: Path, length: int) -> None:
    path.write_bytes(LINES[0] + LINES[2][:length])
    append(path, LINES[1])
    assert {"t1", "t2"} == set(read_open_ids(path))


def test_zeros_after_a_crash_lose_only_their_line(path: Path) -> None:
    path.write_bytes(LINES[0] + b"\0" * 300)
    append(path, LINES[1])
    assert {"t1", "t2"} == set(read_open_ids(path))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe", b"{", b"[]", b"null", b"17", b'"text"', b"[" * 100_000, b"{}",
        b'{"event":"launching"}', b'{"event":"launched","token":"t1"}',
        LINES[0].replace(b"launching", b"paused").strip(),
        LINES[0].replace(b"1.5", b'"yesterday"').strip(),
        LINES[0].replace(b'"pid": 100', b'"pid": "many"').strip(),
        LINES[0].replace(b'"pid": 100', b'"pid": ' + b"9" * 5000).strip(),
    ],
    ids=range(14),
)  # fmt: skip
def test_invalid_lines_are_ignored_and_counted(
    path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(LINES[0] + garbage + b"\n\n" + LINES[1] + LINES[2])
    with caplog.at_level(logging.WARNING, "kaleden"):
        assert {"t1": "abc", "t2": None} == read_open_ids(path)
    assert [f"1 lines of the ledger {path} cannot be read"] == caplog.messages


@pytest.mark.parametrize("content", [b"import kaleden\n", b"just a text", b"{}\n{}\n", b"\n\0"])
def test_file_without_any_valid_line_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="is not a ledger"):
        read_ledger(path)


@pytest.mark.parametrize("content", [b"", b"\n", LINES[0][:50], LINES[0][:1]])
def test_ledger_without_a_complete_line_is_empty(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert [] == read_ledger(path)


def test_valid_ledger_logs_no_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"".join(LINES) + LINES[0][:50])
    read_ledger(path)
    assert [] == caplog.messages


@given(st.lists(st.binary(max_size=30)), st.data())
def test_invalid_lines_do_not_affect_other_lines(garbage: list[bytes], data: Any) -> None:
    lines = list(LINES)
    for piece in garbage:
        lines.insert(data.draw(st.integers(0, len(lines))), piece.replace(b"\n", b" ") + b"\n")
    assert fold(b"".join(LINES))[0] == fold(b"".join(lines))[0]


def test_unknown_fields_are_ignored(path: Path) -> None:
    fields = json.loads(LINES[0])
    fields["owner"]["more"] = fields["more"] = "text"
    path.write_text(json.dumps(fields) + "\n")
    assert [build_launch("t1")] == read_ledger(path)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(Event),
        st.builds(
            build_launch,
            st.sampled_from(["t1", "t2", "t3"]),
            st.sampled_from([None, "abc", "xyz"]),
            st.sampled_from([OWNER, OTHER]),
        ),
    )
)


@given(EVENTS)
def test_last_line_of_each_launch_decides_whether_it_is_open(
    events: list[tuple[Event, OpenLaunch]],
) -> None:
    expected: dict[Any, OpenLaunch] = {}
    for event, recorded in events:
        expected.pop((recorded.owner, recorded.token), None)
        if event is not Event.ENDED:
            expected[recorded.owner, recorded.token] = recorded
    found, unreadable = fold(b"".join(encode(event, [recorded]) for event, recorded in events))
    assert expected == {(recorded.owner, recorded.token): recorded for recorded in found}
    assert 0 == unreadable


# --- compaction ---------------------------------------------------------------------------------


@given(EVENTS)
def test_compaction_keeps_exactly_the_open_launches(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[Event, OpenLaunch]]
) -> None:
    path = tmp_path_factory.mktemp("compaction") / "ledger"
    path.write_bytes(b"".join(encode(event, [recorded]) for event, recorded in events) + b'{"torn')
    before = read_ledger(path)
    compact(path)
    assert before == read_ledger(path)
    content = path.read_bytes()
    assert len(before) == len(content.splitlines())
    compact(path)
    assert content == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


async def test_client_continues_after_a_compaction(path: Path) -> None:
    async with Ledger(path, SERVER) as ledger:
        await ledger.record_launching({"t1": "fits-t1", "t2": "fits-t2"})
        await ledger.record_ended(["t2"])
        compact(path)
        assert 1 == len(path.read_bytes().splitlines())
        await ledger.record_launched("t1", "abc")
    assert {"t1": "abc"} == read_open_ids(path)


def test_symbolic_link_to_a_ledger_is_kept(path: Path) -> None:
    link = path.with_name("link")
    append(path, LINES[0])
    link.symlink_to(path)
    compact(link)
    append(link, LINES[1])
    assert link.is_symlink()
    assert {"t1": None, "t2": None} == read_open_ids(path)


def test_remains_of_a_killed_compaction_do_no_harm(path: Path) -> None:
    append(path, LINES[0])
    path.with_name("ledger.compacting").write_bytes(b"half of it")
    compact(path)
    assert {"t1": None} == read_open_ids(path)


def test_failed_compaction_leaves_the_file_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(path, LINES[0] + LINES[2])
    FullDisk(monkeypatch).free_bytes = 30
    with pytest.raises(LedgerError, match="No space left"):
        compact(path)
    assert LINES[0] + LINES[2] == path.read_bytes()


def test_line_goes_to_the_file_that_has_the_name_when_the_lock_is_acquired(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(path, LINES[0])
    lock = _file._lock
    replaced: list[int] = []

    def lock_after_replacement(file: int, where: Path) -> None:
        if not replaced:
            replaced.append(file)
            compact(path)
        lock(file, where)

    monkeypatch.setattr(_file, "_lock", lock_after_replacement)
    append(path, LINES[1])
    assert {"t1": None, "t2": None} == read_open_ids(path)


def test_wait_for_a_held_lock_times_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "LOCK_SECONDS", 0.02)
    append(path, LINES[0])
    with _file._open_locked(path), pytest.raises(LedgerError, match="held the lock"):
        append(path, LINES[1])
    append(path, LINES[1])
    assert {"t1": None, "t2": None} == read_open_ids(path)


def test_forked_child_does_not_keep_the_lock(path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from kaleden._sessions._ledger import _file
        _file.LOCK_SECONDS = 0.05
        path = Path(sys.argv[1])
        asks, answers = os.pipe()
        with _file._open_locked(path):
            child = os.fork()
            if child == 0:
                os.read(asks, 1)
                os._exit(0)
        _file.append(path, b"{}")
        os.write(answers, b".")
        os.waitpid(child, 0)
    """
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert b"{}" == path.read_bytes()


WRITER = """if True:
    import sys
    import anyio
    from kaleden._sessions._ledger import _file
    from kaleden._sessions._ledger._ledger import Ledger

    # Even on a slow machine, only a lock that is never released fails.
    _file.LOCK_SECONDS = 200

    async def main(path, name, count):
        async with Ledger(path, "https://example.org") as ledger:
            for number in range(count):
                token = f"{name}{number}"
                await ledger.record_launching({token: f"fits-{token}"})
                if number % 3 == 0:
                    await ledger.record_launched(token, f"id{token}")
                if number % 3 == 1:
                    await ledger.record_ended([token])
                print(number, flush=True)

    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def test_concurrent_writes_and_compactions_lose_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_file, "LOCK_SECONDS", 200)
    names, count = "abc", 60
    reading, writing = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(count)], stdout=writing
        )
        for name in names
    ]
    os.close(writing)
    compactions = 0
    # Not continuously: on a slow disk, writers would hardly ever acquire the lock.
    while os.read(reading, 16):
        compact(path)
        compactions += 1
    os.close(reading)
    assert [0] * 3 == [writer.wait() for writer in writers]
    expected = {
        f"{name}{number}": f"id{name}{number}" if number % 3 == 0 else None
        for name in names
        for number in range(count)
        if number % 3 != 1
    }
    assert expected == read_open_ids(path)
    assert compactions > 3
