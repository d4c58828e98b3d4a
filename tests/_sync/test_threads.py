"""One `Session` in many threads, in a child process, beside event loops, and at the end of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden import Session
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from platforms import Server, local_platform
from programs import remove_cleanup_messages
from support import FULL_IMAGE, PLAIN_BACKENDS, FakeTransport, described, stalled

THREADS, CALLS = 32, 200
LIMIT = 8


@pytest.fixture(params=PLAIN_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as server:
        yield server


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do *work* in so many threads that begin at the same time."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def session_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "kaleden"}


@pytest.mark.slow
def test_many_threads_share_one_limit(backend: Any) -> None:
    async def reply(request: Request) -> Response:
        # Answer no request before the limit is reached for the first time.
        if transport.in_flight == LIMIT:
            full.set()
        await full.wait()
        return await described(request)

    full = anyio.Event()
    transport = FakeTransport(reply)
    with Session(transport=transport, concurrency=LIMIT, backend=backend) as session:

        def call(number: int) -> set[str]:
            ids = (f"id{number}x{count}" for count in range(CALLS))
            return {key for each in ids for key in session.info(each).successes}

        keys = in_threads(THREADS, call)
    assert THREADS * CALLS == len(set.union(*keys)) == len(transport.requests)
    assert LIMIT == transport.most_in_flight


def test_threads_that_come_at_the_same_time_open_one_client(backend: Any) -> None:
    transport = FakeTransport(described)
    before = session_threads()
    session = Session(transport=transport, backend=backend)
    outcomes = in_threads(16, lambda number: session.info(f"id{number}"))
    assert all(each.ok for each in outcomes)
    [thread] = session_threads() - before
    session.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_call_is_cut_off_by_a_close_in_another_thread(backend: Any) -> None:
    asked = threading.Event()

    async def reply(request: Request) -> Response:
        asked.set()
        return await stalled(request)

    session = Session(transport=FakeTransport(reply), backend=backend)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(session.info, "abc")
        asked.wait()
        session.close()
        with pytest.raises(kaleden.SessionNotOpen, match="closed"):
            call.result()


def test_a_close_in_another_thread_ends_what_scopes_own(backend: Any) -> None:
    platform = MemoryTransport(latency=0.001)
    session = Session(transport=platform, backend=backend)
    open_, closed = threading.Event(), threading.Event()

    def work() -> None:
        with session.scope() as scope:
            scope.create("fits", FULL_IMAGE, cmd="echo", replicas=3).raise_on_failure()
            open_.set()
            closed.wait()

    with ThreadPoolExecutor(1) as pool:
        block = pool.submit(work)
        open_.wait()
        assert {} != platform.platform.count()
        session.close()
        assert {} == platform.platform.count()
        closed.set()
        with pytest.raises(kaleden.SessionNotOpen):
            block.result()


@pytest.mark.parametrize("outer", PLAIN_BACKENDS)
def test_a_running_event_loop_is_no_hindrance(outer: str, backend: Any) -> None:
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


def test_it_works_in_the_worker_threads_of_an_event_loop(backend: Any) -> None:
    async def main() -> None:
        with await anyio.to_thread.run_sync(session.__enter__):
            outcomes = await anyio.to_thread.run_sync(session.info, "abc")
            assert outcomes.ok
            await anyio.to_thread.run_sync(session.close)

    session = Session(transport=FakeTransport(described), backend=backend)
    for outer in PLAIN_BACKENDS[:1]:
        anyio.run(main, backend=outer)


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
        # Neither of these two asks anybody.
        names = {name for name in dir(owner) if name[0] != "_"} - {"describe", "error"}
        found = {f"{prefix}{name}": getattr(owner, name) for name in names}
        return {name: each for name, each in found.items() if callable(each)}

    def refused(work):
        try:
            work()
        except kaleden.SessionForked as error:
            assert "make another Session" in str(error)
            return True
        return False

    def child(methods):
        told = {name: refused(lambda: call(each)) for name, each in methods.items()}
        told["next"] = refused(lambda: next(results))
        told["stream"] = refused(lambda: session.stream)
        told["leave"] = refused(lambda: scope.__exit__(None, None, None))
        told["exit"] = refused(lambda: session.__exit__(None, None, None))
        return told

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused_and_harms_nothing(
    backend: Any, server: Server, tmp_path: Path
) -> None:
    done = run(FORK, server, backend, tmp_path)
    assert 0 == done.returncode, done.stderr
    told, (status, same), rest, alive = (json.loads(line) for line in done.stdout.splitlines())
    assert {"info", "run", "scope.create", "stream.info", "leave", "exit", "close"} <= told.keys()
    assert [] == [name for name, was_refused in told.items() if not was_refused]
    # What the child raises leaves its `with` blocks unchanged, and nothing waits at its end.
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


def test_the_end_of_the_program_ends_what_is_open(
    backend: Any, server: Server, tmp_path: Path
) -> None:
    done = run(END, server, backend, tmp_path)
    assert (0, "") == (done.returncode, remove_cleanup_messages(done.stderr))
    with Session(server.url, server.token) as session:
        assert [] == session.fetch()
