"""`Session` works in any thread and inside a running event loop, and raises after a fork."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kaleden
from support import PLAIN_BACKENDS, FakeTransport, described

THREADS, CALLS = 32, 10


def session_on(backend: Any, **options: Any) -> tuple[kaleden.Session, FakeTransport]:
    transport = FakeTransport(described)
    return kaleden.Session(transport=transport, backend=backend, **options), transport


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_threads_share_one_client_and_its_limit(
    backend: Any, count_trials: Callable[[int], None]
) -> None:
    session, transport = session_on(backend, concurrency=5)

    def call(thread: int) -> list[str]:
        # The session is not open yet, so all threads race to open it.
        calls = [session.info([f"{thread}-{call}-{n}" for n in range(3)]) for call in range(CALLS)]
        return [info.id for outcomes in calls for info in outcomes.values]

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(call, range(THREADS)))
    session.close()
    assert [3 * CALLS] * THREADS == [len(ids) for ids in results]
    assert THREADS * CALLS * 3 == len(transport.requests)
    assert transport.most_in_flight <= 5
    count_trials(THREADS * CALLS)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_session_works_inside_a_running_event_loop(backend: Any) -> None:
    async def notebook() -> str:
        with session_on(backend)[0] as session:
            [info] = session.info("a").values
            return info.id

    assert "a" == asyncio.run(notebook())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_session_is_rejected_in_forked_child_only(backend: Any) -> None:
    session, _ = session_on(backend)
    with session:
        assert session.info("a").ok
        with warnings.catch_warnings():
            # Python 3.12 and later warn about a fork in a process with threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                session.info("b")
            except kaleden.SessionForked:
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert session.info("c").ok
