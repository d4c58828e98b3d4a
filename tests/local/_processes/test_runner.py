"""Sessions as real processes, behind a real port, with and without PID namespaces."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from kaleden.local import LocalPlatform
from kaleden.local._processes._runner import find_namespace
from kaleden.local._store import Store
from local.worlds import Clock, World, carrying, serve

HOUR = 3600
# A grandchild in a session of its own, which ignores SIGTERM and outlives its parents.
RUNAWAY = "setsid sh -c 'trap \"\" TERM; echo up; sleep 1234'"
ISOLATIONS = [
    pytest.param(False, id="group"),
    pytest.param(
        True,
        id="namespace",
        marks=pytest.mark.skipif(not find_namespace(), reason="no PID namespaces here"),
    ),
]


@pytest.fixture(params=ISOLATIONS)
def isolate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with serve() as world:
        yield world


async def directory_of(world: World) -> Path:
    """Where the platform has its files: three above the directory that a session starts in."""
    (work,) = await world.until_log(await world.create("pwd"))
    return Path(work).parents[2]


async def test_a_command_runs_and_what_it_writes_is_the_log(world: World) -> None:
    id_ = await world.create(
        "python", "-c", "import sys; print('out'); print('err', file=sys.stderr)"
    )
    await world.until(id_, "Completed")
    assert {"out", "err"} == set((await world.view(id_, "logs")).split())
    assert "Started container" in await world.view(id_, "events")


async def test_python_is_the_interpreter_that_runs_the_platform(world: World) -> None:
    id_ = await world.create("python3", "-c", "import sys; print(sys.prefix)")
    await world.until(id_, "Completed")
    assert f"{sys.prefix}\n" == await world.view(id_, "logs")


async def test_a_command_that_fails_is_failed(world: World) -> None:
    id_ = await world.create("sh", "-c", "echo so far; exit 3")
    await world.until(id_, "Failed")
    assert "so far\n" == await world.view(id_, "logs")


async def test_a_command_that_kills_itself_is_failed(world: World) -> None:
    id_ = await world.create("python", "-c", "import os; os.kill(os.getpid(), 9)")
    await world.until(id_, "Failed")


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "python x.py"])
async def test_a_command_that_is_not_there_is_failed_with_an_event(
    world: World, command: str
) -> None:
    id_ = await world.create(command)
    await world.until(id_, "Failed")
    expected = f'exec: "{command}": executable file not found in $PATH'
    assert expected in await world.view(id_, "events")
    assert "" == await world.view(id_, "logs")


@pytest.mark.parametrize(
    ("words", "reason"), [(["nul\0"], "null byte"), (["x" * 200_000], "too long")]
)
async def test_words_that_the_system_does_not_take_fail_the_session_alone(
    world: World, words: list[str], reason: str
) -> None:
    id_ = await world.create("echo", *words)
    await world.until(id_, "Failed")
    assert reason in await world.view(id_, "events")
    assert 200 == (await world.http.get("/v1/session")).status_code


async def test_without_a_command_the_image_says_what_it_is(world: World) -> None:
    id_ = await world.create()
    await world.until(id_, "Completed")
    assert f"session {id_} of local" in await world.view(id_, "logs")


async def test_the_environment_is_the_users_and_the_servers_and_not_the_platforms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    async with serve(user="ada") as world:
        env = ["A=1", "REPLICA_ID=2", "REPLICA_COUNT=3", "HOME=/mine", "skaha_sessionid=me"]
        id_ = await world.create("env", env=env, cores="2", ram="1")
        await world.until(id_, "Completed")
        lines = (await world.view(id_, "logs")).splitlines()
        seen = dict(line.split("=", 1) for line in lines)
    assert {"1", "2", "3"} == {seen["A"], seen["REPLICA_ID"], seen["REPLICA_COUNT"]}
    assert (id_, "ada", "127.0.0.1") == (
        seen["skaha_sessionid"],
        seen["skaha_username"],
        seen["skaha_hostname"],
    )
    assert "2" == seen["OMP_NUM_THREADS"]
    assert seen["HOME"].endswith("/home")
    assert f"/{id_}/" in seen["PWD"]
    assert "SOME_SECRET" not in seen


async def test_every_session_starts_in_an_empty_directory_and_shares_the_home(world: World) -> None:
    first = await world.create("sh", "-c", "pwd; ls; touch here; touch $HOME/there")
    await world.until(first, "Completed")
    second = await world.create("sh", "-c", "pwd; ls; ls $HOME")
    await world.until(second, "Completed")
    (pwd,) = (await world.view(first, "logs")).splitlines()
    other, home = (await world.view(second, "logs")).splitlines()
    assert pwd != other
    assert "there" == home


async def test_use_of_memory_and_cores_is_measured(world: World) -> None:
    id_ = await world.create("python", "-c", "x = b'1' * 50_000_000\nwhile True: pass")

    async def is_measured() -> bool:
        info = await world.info(id_)
        # On a busy machine, an endless loop gets a small share of a core.
        return float(info.get("cpuCoresInUse", 0)) > 0 and float(info["ramInUse"]) >= 0.05

    await world.poll(is_measured)


async def test_deleting_ends_the_whole_tree_runaways_too(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=3) as world:
        id_ = await world.create("sh", "-c", f"{RUNAWAY} & echo up; sleep 1234")
        await world.until_log(id_, 2)
        assert any("sleep 1234" in command for command in carrying(id_))
        await world.delete(id_)
        assert 404 == (await world.http.get(f"/v1/session/{id_}")).status_code
        await world.until_idle()
        assert [] == carrying(id_)


async def test_what_a_command_leaves_behind_ends_with_it(isolate: bool) -> None:
    async with serve(isolate=isolate) as world:
        id_ = await world.create("sh", "-c", f"{RUNAWAY} & echo gone; sleep 0")
        await world.until(id_, "Completed")
        await world.until_idle()
        assert [] == carrying(id_)


async def test_a_deleted_command_is_asked_to_end_before_it_is_killed(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=100) as world:
        script = "trap 'echo bye > $HOME/bye; exit' TERM; echo up; while :; do sleep 0.01; done"
        id_ = await world.create("sh", "-c", script)
        await world.until_log(id_)
        await world.delete(id_)
        await world.until_idle()
        after = await world.create("sh", "-c", "cat $HOME/bye")
        await world.until(after, "Completed")
        assert "bye\n" == await world.view(after, "logs")


async def test_the_files_of_a_deleted_session_are_deleted(world: World) -> None:
    id_ = await world.create("pwd")
    await world.until(id_, "Completed")
    work = anyio.Path((await world.view(id_, "logs")).strip())
    assert await work.is_dir()
    await world.delete(id_)

    async def is_gone() -> bool:
        return not await work.parent.exists()

    await world.poll(is_gone)


async def test_who_uses_too_much_memory_is_failed_with_an_event(isolate: bool) -> None:
    async with serve(isolate=isolate) as world:
        code = "import time; x = b'1' * 1_200_000_000; print('has it', flush=True); time.sleep(999)"
        id_ = await world.create("python", "-c", code, ram="1")
        await world.until(id_, "Failed")
        assert "OOMKilled" in await world.view(id_, "events")
        assert [] == carrying(id_)


async def test_who_asks_for_far_too_much_memory_at_once_does_not_get_it(world: World) -> None:
    id_ = await world.create("python", "-c", "x = bytearray(10_000_000_000)", ram="1")
    await world.until(id_, "Failed")
    assert "MemoryError" in await world.view(id_, "logs")


async def test_who_finds_no_room_is_pending_and_runs_when_there_is() -> None:
    async with serve(cores=1) as world:
        first = await world.create("sleep", "1234")
        await world.until(first, "Running")
        second = await world.create("echo", "my turn")
        assert "Pending" == (await world.info(second))["status"]
        events = await world.http.get(f"/v1/session/{second}?view=events")
        assert (404, f"session {second} not found.\n") == (events.status_code, events.text)
        await world.delete(first)
        await world.until(second, "Completed")
        assert "my turn\n" == await world.view(second, "logs")


async def test_without_a_queue_who_finds_no_room_is_told_why() -> None:
    async with serve(cores=1, queue=False) as world:
        await world.create("sleep", "1234")
        second = await world.create("true")
        assert "Insufficient cpu" in await world.view(second, "events")


async def test_time_is_the_clocks() -> None:
    clock = Clock()
    async with serve(clock=clock) as world:
        done = await world.create("true")
        await world.until(done, "Completed")
        runs = await world.create("sleep", "1234")
        await world.until(runs, "Running")
        clock.now += HOUR
        assert 404 == (await world.http.get(f"/v1/session/{done}")).status_code
        clock.now += 14 * 24 * HOUR
        await world.until(runs, "Failed")
        assert "DeadlineExceeded" in await world.view(runs, "events")
        assert [] == carrying(runs)


@pytest.mark.slow
async def test_two_hundred_quick_sessions_all_complete(world: World) -> None:
    ids = [await world.create("true") for _ in range(200)]

    async def all_are_done() -> bool:
        sessions = (await world.http.get("/v1/session")).json()
        return ["Completed"] * 200 == [session["status"] for session in sessions]

    await world.poll(all_are_done)
    listed = (await world.http.get("/v1/session")).json()
    assert ids == [session["id"] for session in listed]


async def test_who_is_deleted_at_once_never_runs(world: World) -> None:
    """The answer to the create is followed by a delete before the process is there."""
    marks = [f"$HOME/{n}" for n in range(5)]
    for mark in marks:
        await world.delete(await world.create("sh", "-c", f"sleep 5; touch {mark}"))
    await world.until_idle()
    look = await world.create("sh", "-c", "ls $HOME; echo end")
    assert ["end"] == await world.until_log(look)


async def test_leaving_the_block_ends_every_process(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=3) as world:
        id_ = await world.create("sh", "-c", f"{RUNAWAY} & echo up; sleep 1234")
        await world.until_log(id_, 2)
        files = await directory_of(world)
        assert carrying(id_)
        assert files.exists()
    assert [] == carrying(id_)
    assert not files.exists()


async def test_an_exception_in_the_block_comes_out_as_itself_and_processes_end() -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with serve() as world:
            id_ = await world.create("sleep", "1234")
            await world.until(id_, "Running")
            raise error
    assert error is caught.value
    assert [] == carrying(id_)


async def test_cancelling_the_block_ends_every_process(isolate: bool) -> None:
    running = anyio.Event()
    ids = []

    async def life() -> None:
        async with serve(isolate=isolate, grace=3) as world:
            ids.extend([await world.create("sleep", "1234") for _ in range(3)])
            for id_ in ids:
                await world.until(id_, "Running")
            ids.append(await world.create("sh", "-c", RUNAWAY))
            await world.until_log(ids[-1])
            running.set()
            await anyio.sleep_forever()

    with anyio.fail_after(180):
        async with anyio.create_task_group() as group:
            group.start_soon(life)
            await running.wait()
            group.cancel_scope.cancel()
    assert [] == [command for id_ in ids for command in carrying(id_)]


async def test_cancelling_while_sessions_start_leaves_no_process() -> None:
    ids: list[str] = []
    for requests in range(1, 6):
        with anyio.CancelScope() as scope:
            async with serve() as world:
                ids += [await world.create("sleep", "1234") for _ in range(requests)]
                scope.cancel()
    assert 15 == len(ids)
    assert [] == [command for id_ in ids for command in carrying(id_)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_ends_every_process() -> None:
    running = asyncio.Event()
    ids = []

    async def life() -> None:
        async with serve() as world:
            ids.append(await world.create("sleep", "1234"))
            await world.until(ids[0], "Running")
            running.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(life())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [] == carrying(ids[0])


async def test_a_client_that_does_not_read_does_not_keep_the_platform() -> None:
    """Leaving the block takes a bounded time, also while an answer is stuck."""
    with anyio.fail_after(180):
        async with serve() as world:
            id_ = await world.create("sh", "-c", "head -c 20000000 /dev/zero")
            await world.until(id_, "Completed")
            url = httpx.URL(world.platform.url)
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((url.host, url.port))
                head = f"GET {url.path}/v1/session/{id_}?view=logs HTTP/1.1\r\nHost: localhost\r\n"
                login = f"Authorization: Bearer {world.platform.token}\r\n\r\n"
                client.sendall(f"{head}{login}".encode())

                async def is_stuck() -> bool:
                    return world.platform.statistics().in_flight == 1

                await world.poll(is_stuck)
                stuck = client.dup()
    stuck.close()


async def test_a_restarted_platform_knows_its_old_sessions(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with serve(state=state, cores=3) as world:
        done = await world.create("echo", "kept")
        await world.until(done, "Completed")
        ran = await world.create("sleep", "1234")
        notebook = await world.create(type="notebook")
        await world.create("sleep", "1234")
        waits = await world.create("echo", "at last")
        await world.until(ran, "Running")
        before = await world.info(done)

    async with serve(state=state, cores=3) as world:
        assert before == await world.info(done)
        assert "kept\n" == await world.view(done, "logs")
        assert "Failed" == (await world.info(ran))["status"]
        assert "The platform was stopped" in await world.view(ran, "events")
        assert "Running" == (await world.info(notebook))["status"]
        assert (
            str(world.platform.url).removesuffix("/skaha")
            in (await world.info(notebook))["connectURL"]
        )
        await world.until(waits, "Completed")
        assert "at last\n" == await world.view(waits, "logs")


def mark_in(state: Path) -> str:
    store = Store(state)
    try:
        return store.get_value("mark")
    finally:
        store.close()


async def test_what_a_killed_platform_left_is_ended_by_the_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with serve(state=state):
        pass
    mark = await anyio.to_thread.run_sync(mark_in, state)
    environment = {**os.environ, "KALEDEN_LOCAL": f"{mark}/leftover"}
    async with await anyio.open_process(["cat"], env=environment) as left:
        assert left.stdin is not None
        assert left.stdout is not None
        # Linux shows the environment of a process that has just been started as empty.
        await left.stdin.send(b"started")
        assert b"started" == await left.stdout.receive()
        try:
            async with serve(state=state):
                with anyio.fail_after(60):
                    assert -signal.SIGKILL == await left.wait()
        finally:
            if left.returncode is None:
                left.kill()


async def test_a_group_raised_in_the_block_comes_out_as_itself() -> None:
    error = ExceptionGroup("mine", [ValueError("inner")])
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with LocalPlatform():
            raise error
    assert error is caught.value


async def test_a_port_that_is_taken_is_an_error_as_itself() -> None:
    async with serve() as world:
        with pytest.raises(OSError, match="in use"):
            async with LocalPlatform(port=httpx.URL(world.platform.url).port or 0):
                pytest.fail("two on one port")


async def test_a_platform_is_entered_once() -> None:
    platform = LocalPlatform()
    assert "<LocalPlatform, not entered>" == repr(platform)
    for name in ("url", "app", "statistics"):
        with pytest.raises(RuntimeError, match="async with"):
            value: Any = getattr(platform, name)
            value()
    async with platform:
        assert f"<LocalPlatform {platform.url}, no sessions>" == repr(platform)
    with pytest.raises(RuntimeError, match="once"):
        async with platform:
            pytest.fail("entered twice")


@pytest.mark.parametrize("options", [{"cores": 0.5}, {"ram": 0.5}, {"token": ""}])
def test_impossible_platforms_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|empty"):
        LocalPlatform(**options)


async def test_statistics_tell_what_is_going_on(world: World) -> None:
    id_ = await world.create("sleep", "1234")
    await world.until(id_, "Running")
    seen = world.platform.statistics()
    assert {"Running": 1} == seen.sessions
    assert (1, 0, 1) == (seen.processes, seen.in_flight, seen.max_in_flight)
    assert seen.requests >= 2
    assert repr(world.platform).endswith("/skaha, 1 Running>")


async def test_the_application_can_be_reached_without_a_socket() -> None:
    async with LocalPlatform(token="t") as platform:
        transport = httpx.ASGITransport(platform.app)
        async with httpx.AsyncClient(transport=transport, base_url=platform.url) as http:
            reply = await http.get("/v1/session", headers={"Authorization": "Bearer t"})
    assert (200, []) == (reply.status_code, reply.json())


async def test_asking_for_isolation_where_there_is_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kaleden.local._server.find_namespace", tuple)
    with pytest.raises(RuntimeError, match="no PID namespaces"):
        async with LocalPlatform(isolate=True):
            pytest.fail("isolated by nothing")


async def test_no_descriptor_is_left() -> None:
    async with serve() as world:
        await world.until(await world.create("true"), "Completed")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with serve() as world:
            await world.until(await world.create("true"), "Completed")
    assert before == len(os.listdir("/proc/self/fd"))
