"""The thread of a `Session`: concurrent calls, closing, signals, forks, the end of the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pytest

pytest.importorskip("anycorn")

import kaleden
from _sync.helpers import posix
from kaleden import Session, SessionNotOpen
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from platforms import Server, local_platform
from programs import remove_cleanup_messages
from support import FULL_IMAGE, PLAIN_BACKENDS, FakeTransport, described, stalled

THREADS, CALLS = 32, 200
LIMIT = 8


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as server:
        yield server


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call *work* in *count* threads that start at the same time."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def session_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "kaleden"}


# --- many threads ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_share_one_limit(backend: Any) -> None:
    async def reply(request: Request) -> Response:
        # Send no response before the limit is reached for the first time.
        if transport.in_flight == LIMIT:
            is_full.set()
        await is_full.wait()
        return await described(request)

    is_full = anyio.Event()
    transport = FakeTransport(reply)
    with Session(transport=transport, concurrency=LIMIT, backend=backend) as session:

        def call(number: int) -> set[str]:
            ids = (f"id{number}x{count}" for count in range(CALLS))
            return {key for each in ids for key in session.info(each).successes}

        keys = in_threads(THREADS, call)
    assert THREADS * CALLS == len(set.union(*keys)) == len(transport.requests)
    assert LIMIT == transport.most_in_flight


def test_concurrent_first_calls_open_one_client(backend: Any) -> None:
    transport = FakeTransport(described)
    before = session_threads()
    session = Session(transport=transport, backend=backend)
    outcomes = in_threads(16, lambda number: session.info(f"id{number}"))
    assert all(each.ok for each in outcomes)
    [thread] = session_threads() - before
    session.close()
    thread.join(60)
    assert not thread.is_alive()


def test_close_in_another_thread_ends_a_call(backend: Any) -> None:
    is_requested = threading.Event()

    async def reply(request: Request) -> Response:
        is_requested.set()
        return await stalled(request)

    session = Session(transport=FakeTransport(reply), backend=backend)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(session.info, "abc")
        is_requested.wait()
        session.close()
        with pytest.raises(kaleden.SessionNotOpen, match="closed"):
            call.result()


def test_close_in_another_thread_destroys_the_sessions_of_scopes(backend: Any) -> None:
    platform = MemoryTransport(latency=0.001)
    session = Session(transport=platform, backend=backend)
    has_launched, is_closed = threading.Event(), threading.Event()

    def work() -> None:
        with session.scope() as scope:
            scope.create("fits", FULL_IMAGE, cmd="echo", replicas=3).raise_on_failure()
            has_launched.set()
            is_closed.wait()

    with ThreadPoolExecutor(1) as pool:
        block = pool.submit(work)
        has_launched.wait()
        assert {} != platform.platform.count()
        session.close()
        assert {} == platform.platform.count()
        is_closed.set()
        with pytest.raises(kaleden.SessionNotOpen):
            block.result()


@pytest.mark.parametrize("outer", PLAIN_BACKENDS)
def test_session_works_beside_a_running_event_loop(outer: str, backend: Any) -> None:
    async def cell() -> None:
        with Session(transport=FakeTransport(described), backend=backend) as session:
            if outer == backend == "trio":
                with pytest.raises(kaleden.WrongThread, match="asyncio"):
                    session.info("abc")
            else:
                assert session.info("abc").ok

    if outer == backend == "trio":
        with pytest.raises(kaleden.WrongThread):
            anyio.run(cell, backend=outer)
    else:
        anyio.run(cell, backend=outer)


def test_session_works_in_worker_threads_of_an_event_loop(backend: Any) -> None:
    async def main() -> None:
        with await anyio.to_thread.run_sync(session.__enter__):
            outcomes = await anyio.to_thread.run_sync(session.info, "abc")
            assert outcomes.ok
            await anyio.to_thread.run_sync(session.close)

    session = Session(transport=FakeTransport(described), backend=backend)
    for outer in PLAIN_BACKENDS[:1]:
        anyio.run(main, backend=outer)


# --- signals and exits ----------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("point", ["check", "_start", "_start_task"])
def test_signal_handler_may_close_the_session(
    point: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(transport=FakeTransport(described), backend=backend)
    loop_thread = vars(session)["_loop_thread"]
    original = getattr(loop_thread, point)

    def close(*_: object) -> None:
        session.close()

    previous = signal.signal(signal.SIGUSR1, close)

    def send_signal(*args: Any) -> Any:
        monkeypatch.setattr(loop_thread, point, original)
        signal.raise_signal(signal.SIGUSR1)
        return original(*args)

    monkeypatch.setattr(loop_thread, point, send_signal)
    try:
        with pytest.raises(SessionNotOpen):
            session.info("abc")
            session.info("abc")
    finally:
        signal.signal(signal.SIGUSR1, previous)


def interrupt_at(line: int, function: str) -> Any:
    """Return a tracer that interrupts this thread at a line of a function of `LoopThread`."""
    passed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed
        code = frame.f_code
        if code.co_name != function or not code.co_filename.endswith("_loop_thread.py"):
            return None
        passed += event == "line"
        if passed == line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    return trace


def test_interrupt_during_the_start_leaks_no_thread(backend: Any) -> None:
    previous, interrupted = sys.gettrace(), 0
    while True:
        before = {*threading.enumerate()}
        session = Session(transport=FakeTransport(described), backend=backend)
        sys.settrace(interrupt_at(interrupted + 1, "_start"))
        try:
            session.info("abc")
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        finally:
            sys.settrace(previous)
        assert session.info("abc").ok
        [thread] = [each for each in threading.enumerate() if each not in before]
        session.close()
        thread.join()
    session.close()
    assert 5 < interrupted


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_exit_in_the_event_loop_is_raised(backend: Any) -> None:
    async def reply(request: Request) -> Response:
        if "exit" in request.target:
            raise SystemExit(3)
        return await described(request)

    session = Session(transport=FakeTransport(reply), backend=backend)
    with pytest.raises(SystemExit):
        session.info("exit")
    if backend == "asyncio":
        # asyncio ends the loop on SystemExit in a task.
        assert vars(session)["_loop_thread"]._ended.wait(60)
        with pytest.raises(SessionNotOpen, match="make another session") as caught:
            session.info("abc")
        assert isinstance(caught.value.__cause__, SystemExit | RuntimeError)
        with pytest.raises(SystemExit):
            session.close()
    else:
        assert session.info("abc").ok
        session.close()


# --- forks, and the end of the program ------------------------------------------------------------

FORK = """if True:
    import inspect, json, os, sys
    import kaleden
    url, token, backend, ledger = sys.argv[1:]
    image = "skaha/astroml:latest"
    arguments = {
        "ids": "abc", "session": "abc", "path": ledger, "prefix": "abc", "name": "abc",
        "image": image, "outcomes": kaleden.Outcomes("info", []),
    }

    def call(method):
        names = inspect.signature(method).parameters
        return method(**{name: arguments[name] for name in names if name in arguments})

    def calls(owner, prefix=""):
        # These two send no request.
        names = {name for name in dir(owner) if name[0] != "_"} - {"describe", "error"}
        found = {f"{prefix}{name}": getattr(owner, name) for name in names}
        return {name: each for name, each in found.items() if callable(each)}

    def is_refused(work):
        try:
            work()
        except kaleden.SessionForked as error:
            assert "make another Session" in str(error)
            return True
        return False

    def child(methods):
        refused = {name: is_refused(lambda: call(each)) for name, each in methods.items()}
        refused["next"] = is_refused(lambda: next(results))
        refused["stream"] = is_refused(lambda: session.stream)
        refused["leave"] = is_refused(lambda: scope.__exit__(None, None, None))
        refused["exit"] = is_refused(lambda: session.__exit__(None, None, None))
        return refused

    session = kaleden.Session(url, token, backend=backend, ledger=ledger)
    with session, session.scope() as scope:
        created = scope.create("fits", image, cmd="sleep", args="60", replicas=2)
        methods = calls(session) | calls(scope, "scope.") | calls(session.stream, "stream.")
        del methods["scope.statistics"]
        with session.stream.info(f"id{n}" for n in range(1000)) as results:
            next(results)
            before = open(ledger).read()
            pid = os.fork()
            if pid == 0:
                print(json.dumps(child(methods)), flush=True)
                sys.exit(7)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(json.dumps([status, open(ledger).read() == before]))
            print(json.dumps(sum(1 for _ in results)))
        print(json.dumps(session.info(created).ok), flush=True)
"""


def run(
    text: str, server: Server, backend: Any, tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", text, server.url, server.token, backend]
    return subprocess.run(
        [*command, str(tmp_path / "ledger")], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_is_refused_and_harms_nothing(
    backend: Any, server: Server, tmp_path: Path
) -> None:
    done = run(FORK, server, backend, tmp_path)
    assert 0 == done.returncode, done.stderr
    refused, (status, same), rest, alive = (json.loads(line) for line in done.stdout.splitlines())
    names = {"info", "run", "scope.create", "stream.info", "leave", "exit", "close"}
    assert names <= refused.keys()
    assert [] == [name for name, was_refused in refused.items() if not was_refused]
    # The `with` blocks in the child raise its own exit, and nothing waits at its end.
    assert (7, True, 999, True) == (status, same, rest, alive)
    with Session(server.url, server.token) as session:
        assert [] == session.fetch()


END = """if True:
    import sys, threading
    import kaleden
    url, token, backend, ledger = sys.argv[1:]
    session = kaleden.Session(url, token, backend=backend, ledger=ledger)
    ready = threading.Event()

    def work():
        with session.scope() as scope:
            scope.create("fits", "skaha/astroml:latest", cmd="sleep", args="60").raise_on_failure()
            ready.set()
            threading.Event().wait()

    threading.Thread(target=work, daemon=True).start()
    ready.wait()
    session.fetch()
"""


def test_program_end_closes_open_scopes(backend: Any, server: Server, tmp_path: Path) -> None:
    done = run(END, server, backend, tmp_path)
    assert (0, "") == (done.returncode, remove_cleanup_messages(done.stderr))
    with Session(server.url, server.token) as session:
        assert [] == session.fetch()
