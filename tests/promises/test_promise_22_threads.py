"""`Session` works from any thread and inside a running loop, and refuses after a fork."""

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
def test_many_threads_share_one_client_and_its_limit(
    backend: Any, trials: Callable[[int], None]
) -> None:
    session, transport = session_on(backend, concurrency=5)

    def ask(thread: int) -> list[str]:
        # Nobody has opened it: all come first.
        calls = [session.info([f"{thread}-{call}-{n}" for n in range(3)]) for call in range(CALLS)]
        return [info.id for outcomes in calls for info in outcomes.values]

    with ThreadPoolExecutor(THREADS) as pool:
        told = list(pool.map(ask, range(THREADS)))
    session.close()
    assert [3 * CALLS] * THREADS == [len(ids) for ids in told]
    assert THREADS * CALLS * 3 == len(transport.requests)
    assert transport.most_in_flight <= 5
    trials(THREADS * CALLS)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_it_works_where_an_event_loop_runs(backend: Any) -> None:
    async def notebook() -> str:
        with session_on(backend)[0] as session:
            [info] = session.info("a").values
            return info.id

    assert "a" == asyncio.run(notebook())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_it_refuses_after_a_fork_and_goes_on_in_the_parent(backend: Any) -> None:
    session, _ = session_on(backend)
    with session:
        assert session.info("a").ok
        with warnings.catch_warnings():
            # From Python 3.12 on, forking beside threads warns.
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
