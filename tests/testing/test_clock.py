"""Tests of `run_virtual`."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, to_thread
from anyio.lowlevel import checkpoint

from kaleden.testing import Deadlock, run_virtual
from kaleden.testing._clock import Backend


def test_time_starts_at_zero(backend: Backend) -> None:
    async def main() -> float:
        return anyio.current_time()

    assert 0.0 == run_virtual(main, backend=backend)


def test_a_year_of_sleep_takes_no_real_time(backend: Backend) -> None:
    async def main() -> float:
        await anyio.sleep(365 * 86400)
        return anyio.current_time()

    assert 365 * 86400 == run_virtual(main, backend=backend)


def test_arguments_are_passed_and_result_is_returned(backend: Backend) -> None:
    async def main(one: int, two: str) -> tuple[int, str]:
        await checkpoint()
        return one, two

    assert (1, "2") == run_virtual(main, 1, "2", backend=backend)


def test_error_is_raised_unchanged(backend: Backend) -> None:
    error = ValueError("mine")

    async def main() -> None:
        await anyio.sleep(1)
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        run_virtual(main, backend=backend)
    assert caught.value is error


def test_timers_run_in_order_of_time(backend: Backend) -> None:
    seen: list[tuple[float, float]] = []

    async def note(seconds: float) -> None:
        await anyio.sleep(seconds)
        seen.append((seconds, anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for seconds in (3, 0.5, 86400 * 3, 1):
                group.start_soon(note, seconds)

    run_virtual(main, backend=backend)

    assert [(n, n) for n in (0.5, 1, 3, 86400 * 3)] == seen


def test_deadline_expires_on_time(backend: Backend) -> None:
    async def main() -> float:
        with anyio.move_on_after(17):
            await anyio.sleep_forever()
        return anyio.current_time()

    assert 17 == run_virtual(main, backend=backend)


def test_time_does_not_pass_while_a_task_can_run(backend: Backend) -> None:
    times: set[float] = set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
            for _ in range(1000):
                await checkpoint()
                times.add(anyio.current_time())

    run_virtual(main, backend=backend)

    assert {0.0} == times


def test_time_does_not_pass_while_a_thread_runs(backend: Backend) -> None:
    release = threading.Event()
    ended = -1.0

    async def main() -> None:
        nonlocal ended
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 5)
            await to_thread.run_sync(release.wait, 0.05)
            ended = anyio.current_time()

    run_virtual(main, backend=backend)

    assert 0.0 == ended


def test_time_passes_for_a_thread_that_waits_for_the_loop(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaleden.testing._virtual_time._THREAD_TIMEOUT", 1.0)

    async def main() -> float:
        await to_thread.run_sync(partial(anyio.from_thread.run, anyio.sleep, 60))
        return anyio.current_time()

    assert 60 == run_virtual(main, backend=backend)


@pytest.mark.parametrize("waits", [0, 1, 2])
def test_wait_all_tasks_blocked_returns_before_time_passes(backend: Backend, waits: int) -> None:
    async def main() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1000)
            for _ in range(waits):
                await anyio.wait_all_tasks_blocked()
            # asyncio has no such function, so anyio polls there, with short sleeps.
            early = anyio.current_time() < 1
            group.cancel_scope.cancel()
        return early

    assert run_virtual(main, backend=backend)


def test_deadlock_is_raised_after_clean_up(backend: Backend) -> None:
    cleaned = False

    async def main() -> None:
        nonlocal cleaned
        await anyio.sleep(2)
        try:
            await anyio.Event().wait()
        finally:
            cleaned = True

    with pytest.raises(Deadlock, match="after 2 seconds all tasks wait"):
        run_virtual(main, backend=backend)
    assert cleaned


@pytest.mark.parametrize("reaction", ["returns", "raises"])
def test_deadlock_is_raised_however_tasks_react(backend: Backend, reaction: str) -> None:
    async def main() -> int:
        with CancelScope() as scope:
            try:
                await anyio.Event().wait()
            except anyio.get_cancelled_exc_class():
                if reaction == "raises":
                    raise ValueError from None
                scope.cancel()
                raise
        return 1

    with pytest.raises(Deadlock):
        run_virtual(main, backend=backend)


def test_deadlock_in_a_shield_is_raised(backend: Backend) -> None:
    async def main() -> None:
        with CancelScope(shield=True):
            await anyio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main, backend=backend)


BLOCKED_THREAD_PROGRAM = """
import sys, threading
from anyio import to_thread
from kaleden.testing import Deadlock, _virtual_time, run_virtual

_virtual_time._THREAD_TIMEOUT = 0.01
release = threading.Event()

async def main():
    await to_thread.run_sync(release.wait)

try:
    run_virtual(main, backend=sys.argv[1])
except Deadlock:
    print("deadlock")
release.set()
"""


def test_deadlock_with_a_blocked_thread_is_raised(backend: Backend) -> None:
    """Run in a separate process, because the blocked task is left to the garbage collector."""
    program = subprocess.run(
        [sys.executable, "-c", BLOCKED_THREAD_PROGRAM, backend],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "deadlock" == program.stdout.strip()


def test_another_run_works_after_a_deadlock(backend: Backend) -> None:
    with pytest.raises(Deadlock):
        run_virtual(anyio.sleep_forever, backend=backend)

    assert run_virtual(anyio.sleep, 3, backend=backend) is None


def test_clean_up_after_a_deadlock_can_sleep(backend: Backend) -> None:
    ended = 0.0

    async def main() -> None:
        nonlocal ended
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(4)
            ended = anyio.current_time()

    with pytest.raises(Deadlock):
        run_virtual(main, backend=backend)
    assert 4 == ended


def test_shielded_child_of_a_cancelled_task_can_sleep(backend: Backend) -> None:
    async def clean_up() -> None:
        with CancelScope(shield=True):
            await anyio.sleep(30)

    async def main() -> float:
        with anyio.move_on_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(clean_up)
        return anyio.current_time()

    assert 30 == run_virtual(main, backend=backend)


def record_task_order(backend: Backend, seed: int) -> list[int]:
    """Return the order in which thirty tasks take six steps each."""
    steps: list[int] = []

    async def walk(number: int) -> None:
        for _ in range(6):
            await checkpoint()
            steps.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(walk, number)

    run_virtual(main, backend=backend, seed=seed)
    return steps


def test_same_seed_gives_same_task_order(backend: Backend) -> None:
    assert record_task_order(backend, 7) == record_task_order(backend, 7)


def test_another_seed_gives_another_task_order_on_trio() -> None:
    pytest.importorskip("trio")
    assert record_task_order("trio", 1) != record_task_order("trio", 2)


def test_random_state_of_trio_is_restored() -> None:
    _run: Any = pytest.importorskip("trio._core._run")
    _run._r.seed(99)
    expected = random.Random(99).random()
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING

    run_virtual(checkpoint, backend="trio")

    assert expected == _run._r.random()
    assert before == _run._ALLOW_DETERMINISTIC_SCHEDULING


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks")
def test_eager_task_starts_at_once() -> None:
    seen: list[str] = []

    async def child() -> None:
        seen.append("child")

    async def main() -> None:
        task = asyncio.create_task(child())
        seen.append("parent")
        await task

    run_virtual(main, eager=True)

    assert ["child", "parent"] == seen


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="has eager tasks")
def test_eager_is_rejected_before_python_3_12() -> None:
    with pytest.raises(RuntimeError, match=r"need Python 3\.12"):
        run_virtual(checkpoint, eager=True)


def count_ticks(backend: Backend, main: Callable[[], Awaitable[object]]) -> int:
    """Count the event-loop iterations."""
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    run_virtual(main, backend=backend, on_tick=tick)
    return count


def test_on_tick_is_called_at_each_iteration(backend: Backend) -> None:
    async def walk(steps: int) -> None:
        for _ in range(steps):
            await checkpoint()

    few, many = (count_ticks(backend, partial(walk, steps)) for steps in (10, 110))

    assert 100 == many - few


def test_on_tick_can_cancel_before_time_passes(backend: Backend) -> None:
    scope: CancelScope | None = None
    blocked = False

    def tick() -> bool:
        if not blocked or scope is None or scope.cancel_called:
            return False
        scope.cancel()
        return True

    async def main() -> float:
        nonlocal scope, blocked
        with CancelScope() as scope:
            blocked = True
            await anyio.sleep(60)
        return anyio.current_time()

    assert 0.0 == run_virtual(main, backend=backend, on_tick=tick)
