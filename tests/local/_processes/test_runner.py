"""Sessions as real processes of a served platform, with and without PID namespaces."""

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
from local.serving import Clock, ServedPlatform, find_processes, serve

HOUR = 3600
# A grandchild in its own session, which ignores SIGTERM and outlives its parents.
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
async def served() -> AsyncGenerator[ServedPlatform]:
    async with serve() as served:
        yield served


async def find_files_directory(served: ServedPlatform) -> Path:
    """Return the platform's directory: three levels above the directory of a session."""
    (work,) = await served.wait_for_log(await served.create("pwd"))
    return Path(work).parents[2]


async def test_command_output_is_the_log(served: ServedPlatform) -> None:
    id_ = await served.create(
        "python", "-c", "import sys; print('out'); print('err', file=sys.stderr)"
    )
    await served.wait_for_status(id_, "Completed")
    assert {"out", "err"} == set((await served.get_view(id_, "logs")).split())
    assert "Started container" in await served.get_view(id_, "events")


async def test_python_is_interpreter_of_platform(served: ServedPlatform) -> None:
    id_ = await served.create("python3", "-c", "import sys; print(sys.prefix)")
    await served.wait_for_status(id_, "Completed")
    assert f"{sys.prefix}\n" == await served.get_view(id_, "logs")


async def test_failing_command_is_failed(served: ServedPlatform) -> None:
    id_ = await served.create("sh", "-c", "echo so far; exit 3")
    await served.wait_for_status(id_, "Failed")
    assert "so far\n" == await served.get_view(id_, "logs")


async def test_command_killed_by_signal_is_failed(served: ServedPlatform) -> None:
    id_ = await served.create("python", "-c", "import os; os.kill(os.getpid(), 9)")
    await served.wait_for_status(id_, "Failed")


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "python x.py"])
async def test_missing_command_is_failed_with_event(served: ServedPlatform, command: str) -> None:
    id_ = await served.create(command)
    await served.wait_for_status(id_, "Failed")
    expected = f'exec: "{command}": executable file not found in $PATH'
    assert expected in await served.get_view(id_, "events")
    assert "" == await served.get_view(id_, "logs")


@pytest.mark.parametrize(
    ("arguments", "reason"), [(["nul\0"], "null byte"), (["x" * 200_000], "too long")]
)
async def test_invalid_arguments_fail_only_their_session(
    served: ServedPlatform, arguments: list[str], reason: str
) -> None:
    id_ = await served.create("echo", *arguments)
    await served.wait_for_status(id_, "Failed")
    assert reason in await served.get_view(id_, "events")
    assert 200 == (await served.http.get("/v1/session")).status_code


async def test_session_without_command_prints_its_image(served: ServedPlatform) -> None:
    id_ = await served.create()
    await served.wait_for_status(id_, "Completed")
    assert f"session {id_} of local" in await served.get_view(id_, "logs")


async def test_environment_comes_from_user_and_server_not_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    async with serve(user="ada") as served:
        env = ["A=1", "REPLICA_ID=2", "REPLICA_COUNT=3", "HOME=/mine", "skaha_sessionid=me"]
        id_ = await served.create("env", env=env, cores="2", ram="1")
        await served.wait_for_status(id_, "Completed")
        lines = (await served.get_view(id_, "logs")).splitlines()
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


async def test_sessions_start_in_empty_directory_and_share_home(
    served: ServedPlatform,
) -> None:
    first = await served.create("sh", "-c", "pwd; ls; touch here; touch $HOME/there")
    await served.wait_for_status(first, "Completed")
    second = await served.create("sh", "-c", "pwd; ls; ls $HOME")
    await served.wait_for_status(second, "Completed")
    (pwd,) = (await served.get_view(first, "logs")).splitlines()
    other, home = (await served.get_view(second, "logs")).splitlines()
    assert pwd != other
    assert "there" == home


async def test_memory_and_cores_are_measured(served: ServedPlatform) -> None:
    id_ = await served.create("python", "-c", "x = b'1' * 50_000_000\nwhile True: pass")

    async def is_measured() -> bool:
        info = await served.get_info(id_)
        # On a busy machine, an endless loop gets a small share of a core.
        return float(info.get("cpuCoresInUse", 0)) > 0 and float(info["ramInUse"]) >= 0.05

    await served.poll(is_measured)


async def test_delete_ends_whole_process_tree(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=3) as served:
        id_ = await served.create("sh", "-c", f"{RUNAWAY} & echo up; sleep 1234")
        await served.wait_for_log(id_, 2)
        assert any("sleep 1234" in command for command in find_processes(id_))
        await served.delete(id_)
        assert 404 == (await served.http.get(f"/v1/session/{id_}")).status_code
        await served.wait_until_idle()
        assert [] == find_processes(id_)


async def test_leftover_processes_end_with_command(isolate: bool) -> None:
    async with serve(isolate=isolate) as served:
        id_ = await served.create("sh", "-c", f"{RUNAWAY} & echo gone; sleep 0")
        await served.wait_for_status(id_, "Completed")
        await served.wait_until_idle()
        assert [] == find_processes(id_)


async def test_deleted_command_gets_sigterm_before_sigkill(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=100) as served:
        script = "trap 'echo bye > $HOME/bye; exit' TERM; echo up; while :; do sleep 0.01; done"
        id_ = await served.create("sh", "-c", script)
        await served.wait_for_log(id_)
        await served.delete(id_)
        await served.wait_until_idle()
        after = await served.create("sh", "-c", "cat $HOME/bye")
        await served.wait_for_status(after, "Completed")
        assert "bye\n" == await served.get_view(after, "logs")


async def test_files_of_deleted_session_are_deleted(served: ServedPlatform) -> None:
    id_ = await served.create("pwd")
    await served.wait_for_status(id_, "Completed")
    work = anyio.Path((await served.get_view(id_, "logs")).strip())
    assert await work.is_dir()
    await served.delete(id_)

    async def is_gone() -> bool:
        return not await work.parent.exists()

    await served.poll(is_gone)


async def test_session_over_memory_limit_is_failed_with_event(isolate: bool) -> None:
    async with serve(isolate=isolate) as served:
        code = "import time; x = b'1' * 1_200_000_000; print('has it', flush=True); time.sleep(999)"
        id_ = await served.create("python", "-c", code, ram="1")
        await served.wait_for_status(id_, "Failed")
        assert "OOMKilled" in await served.get_view(id_, "events")
        assert [] == find_processes(id_)


async def test_huge_allocation_fails_with_memory_error(
    served: ServedPlatform,
) -> None:
    id_ = await served.create("python", "-c", "x = bytearray(10_000_000_000)", ram="1")
    await served.wait_for_status(id_, "Failed")
    assert "MemoryError" in await served.get_view(id_, "logs")


async def test_session_without_capacity_is_pending_until_there_is() -> None:
    async with serve(cores=1) as served:
        first = await served.create("sleep", "1234")
        await served.wait_for_status(first, "Running")
        second = await served.create("echo", "my turn")
        assert "Pending" == (await served.get_info(second))["status"]
        events = await served.http.get(f"/v1/session/{second}?view=events")
        assert (404, f"session {second} not found.\n") == (events.status_code, events.text)
        await served.delete(first)
        await served.wait_for_status(second, "Completed")
        assert "my turn\n" == await served.get_view(second, "logs")


async def test_session_without_capacity_and_queue_has_event() -> None:
    async with serve(cores=1, queue=False) as served:
        await served.create("sleep", "1234")
        second = await served.create("true")
        assert "Insufficient cpu" in await served.get_view(second, "events")


async def test_clock_decides_about_deadlines() -> None:
    clock = Clock()
    async with serve(clock=clock) as served:
        done = await served.create("true")
        await served.wait_for_status(done, "Completed")
        runs = await served.create("sleep", "1234")
        await served.wait_for_status(runs, "Running")
        clock.now += HOUR
        assert 404 == (await served.http.get(f"/v1/session/{done}")).status_code
        clock.now += 14 * 24 * HOUR
        await served.wait_for_status(runs, "Failed")
        assert "DeadlineExceeded" in await served.get_view(runs, "events")
        assert [] == find_processes(runs)


@pytest.mark.slow
async def test_two_hundred_quick_sessions_all_complete(served: ServedPlatform) -> None:
    ids = [await served.create("true") for _ in range(200)]

    async def are_all_completed() -> bool:
        sessions = (await served.http.get("/v1/session")).json()
        return ["Completed"] * 200 == [session["status"] for session in sessions]

    await served.poll(are_all_completed)
    listed = (await served.http.get("/v1/session")).json()
    assert ids == [session["id"] for session in listed]


async def test_session_deleted_at_once_never_runs(served: ServedPlatform) -> None:
    """Each session is deleted right after its create request, before its process exists."""
    files = [f"$HOME/{n}" for n in range(5)]
    for file in files:
        await served.delete(await served.create("sh", "-c", f"sleep 5; touch {file}"))
    await served.wait_until_idle()
    listing = await served.create("sh", "-c", "ls $HOME; echo end")
    assert ["end"] == await served.wait_for_log(listing)


async def test_block_exit_ends_every_process(isolate: bool) -> None:
    async with serve(isolate=isolate, grace=3) as served:
        id_ = await served.create("sh", "-c", f"{RUNAWAY} & echo up; sleep 1234")
        await served.wait_for_log(id_, 2)
        files = await find_files_directory(served)
        assert find_processes(id_)
        assert files.exists()
    assert [] == find_processes(id_)
    assert not files.exists()


async def test_exception_in_block_propagates_and_processes_end() -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with serve() as served:
            id_ = await served.create("sleep", "1234")
            await served.wait_for_status(id_, "Running")
            raise error
    assert error is caught.value
    assert [] == find_processes(id_)


async def test_cancelling_block_ends_every_process(isolate: bool) -> None:
    running = anyio.Event()
    ids = []

    async def run_platform() -> None:
        async with serve(isolate=isolate, grace=3) as served:
            ids.extend([await served.create("sleep", "1234") for _ in range(3)])
            for id_ in ids:
                await served.wait_for_status(id_, "Running")
            ids.append(await served.create("sh", "-c", RUNAWAY))
            await served.wait_for_log(ids[-1])
            running.set()
            await anyio.sleep_forever()

    with anyio.fail_after(180):
        async with anyio.create_task_group() as group:
            group.start_soon(run_platform)
            await running.wait()
            group.cancel_scope.cancel()
    assert [] == [command for id_ in ids for command in find_processes(id_)]


async def test_cancelling_while_sessions_start_leaves_no_process() -> None:
    ids: list[str] = []
    for requests in range(1, 6):
        with anyio.CancelScope() as scope:
            async with serve() as served:
                ids += [await served.create("sleep", "1234") for _ in range(requests)]
                scope.cancel()
    assert 15 == len(ids)
    assert [] == [command for id_ in ids for command in find_processes(id_)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_ends_every_process() -> None:
    running = asyncio.Event()
    ids = []

    async def run_platform() -> None:
        async with serve() as served:
            ids.append(await served.create("sleep", "1234"))
            await served.wait_for_status(ids[0], "Running")
            running.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(run_platform())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [] == find_processes(ids[0])


async def test_client_that_does_not_read_does_not_delay_exit() -> None:
    """Leaving the block takes a bounded time, also while a response is blocked."""
    with anyio.fail_after(180):
        async with serve() as served:
            id_ = await served.create("sh", "-c", "head -c 20000000 /dev/zero")
            await served.wait_for_status(id_, "Completed")
            url = httpx.URL(served.platform.url)
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((url.host, url.port))
                head = f"GET {url.path}/v1/session/{id_}?view=logs HTTP/1.1\r\nHost: localhost\r\n"
                login = f"Authorization: Bearer {served.platform.token}\r\n\r\n"
                client.sendall(f"{head}{login}".encode())

                async def is_blocked() -> bool:
                    return served.platform.statistics().in_flight == 1

                await served.poll(is_blocked)
                duplicate = client.dup()
    duplicate.close()


async def test_restarted_platform_restores_sessions(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with serve(state=state, cores=3) as served:
        done = await served.create("echo", "kept")
        await served.wait_for_status(done, "Completed")
        ran = await served.create("sleep", "1234")
        notebook = await served.create(type="notebook")
        await served.create("sleep", "1234")
        waits = await served.create("echo", "at last")
        await served.wait_for_status(ran, "Running")
        before = await served.get_info(done)

    async with serve(state=state, cores=3) as served:
        assert before == await served.get_info(done)
        assert "kept\n" == await served.get_view(done, "logs")
        assert "Failed" == (await served.get_info(ran))["status"]
        assert "The platform was stopped" in await served.get_view(ran, "events")
        assert "Running" == (await served.get_info(notebook))["status"]
        assert (
            str(served.platform.url).removesuffix("/skaha")
            in (await served.get_info(notebook))["connectURL"]
        )
        await served.wait_for_status(waits, "Completed")
        assert "at last\n" == await served.get_view(waits, "logs")


def read_marker(state: Path) -> str:
    store = Store(state)
    try:
        return store.get_value("mark")
    finally:
        store.close()


async def test_processes_of_killed_platform_are_ended_by_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with serve(state=state):
        pass
    marker = await anyio.to_thread.run_sync(read_marker, state)
    environment = {**os.environ, "KALEDEN_LOCAL": f"{marker}/leftover"}
    async with await anyio.open_process(["cat"], env=environment) as left:
        assert left.stdin is not None
        assert left.stdout is not None
        # Wait until `cat` runs: Linux shows an empty environment while a process is being started.
        await left.stdin.send(b"started")
        assert b"started" == await left.stdout.receive()
        try:
            async with serve(state=state):
                with anyio.fail_after(60):
                    assert -signal.SIGKILL == await left.wait()
        finally:
            if left.returncode is None:
                left.kill()


async def test_exception_group_in_block_propagates_unchanged() -> None:
    error = ExceptionGroup("mine", [ValueError("inner")])
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with LocalPlatform():
            raise error
    assert error is caught.value


async def test_port_in_use_raises_oserror() -> None:
    async with serve() as served:
        with pytest.raises(OSError, match="in use"):
            async with LocalPlatform(port=httpx.URL(served.platform.url).port or 0):
                pytest.fail("two on one port")


async def test_platform_is_entered_only_once() -> None:
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
def test_invalid_settings_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|empty"):
        LocalPlatform(**options)


async def test_statistics_count_sessions_requests_and_processes(served: ServedPlatform) -> None:
    id_ = await served.create("sleep", "1234")
    await served.wait_for_status(id_, "Running")
    seen = served.platform.statistics()
    assert {"Running": 1} == seen.sessions
    assert (1, 0, 1) == (seen.processes, seen.in_flight, seen.max_in_flight)
    assert seen.requests >= 2
    assert repr(served.platform).endswith("/skaha, 1 Running>")


async def test_application_can_be_used_without_socket() -> None:
    async with LocalPlatform(token="t") as platform:
        transport = httpx.ASGITransport(platform.app)
        async with httpx.AsyncClient(transport=transport, base_url=platform.url) as http:
            response = await http.get("/v1/session", headers={"Authorization": "Bearer t"})
    assert (200, []) == (response.status_code, response.json())


async def test_isolation_without_namespaces_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kaleden.local._server.find_namespace", tuple)
    with pytest.raises(RuntimeError, match="no PID namespaces"):
        async with LocalPlatform(isolate=True):
            pytest.fail("isolated by nothing")


async def test_no_descriptor_is_leaked() -> None:
    async with serve() as served:
        await served.wait_for_status(await served.create("true"), "Completed")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with serve() as served:
            await served.wait_for_status(await served.create("true"), "Completed")
    assert before == len(os.listdir("/proc/self/fd"))
