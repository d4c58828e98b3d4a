"""Processes that are killed with ``kill -9`` in the middle of a launch, and what is left then."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden._ledger_file import OpenLaunch, read_ledger
from platforms import Server, local_platform

ROUNDS, AT_ONCE = 5, 10
"""Five times ten processes, each killed at a moment of its own."""

REPLICAS = 20

LAUNCHER = """if True:
    import sys
    import anyio
    import kaleden

    async def main(url, token, ledger, name, replicas):
        async with kaleden.AsyncSession(url, token, ledger=ledger) as session:
            async with session.scope() as scope:
                print("ready", flush=True)
                sys.stdin.readline()
                created = await scope.create(
                    name, "skaha/astroml:latest", cmd="sleep", args="600", replicas=int(replicas)
                )
                created.raise_on_failure()
                print("launched", flush=True)
                await anyio.sleep_forever()

    anyio.run(main, *sys.argv[1:])
"""


@contextmanager
def launcher(
    server: Server, ledger: Path, name: str, replicas: int
) -> Iterator[subprocess.Popen[str]]:
    """A process that launches sessions in a scope, and then waits to be killed."""
    arguments = [server.url, server.token, str(ledger), name, str(replicas)]
    command = [sys.executable, "-c", LAUNCHER, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(word: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert f"{word}\n" == process.stdout.readline()


def begin(*processes: subprocess.Popen[str]) -> float:
    """Let them launch, all at the same time, and tell when."""
    for process in processes:
        wait_for("ready", process)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return time.monotonic()


def running(server: Server) -> set[str]:
    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.name for info in await session.fetch()}

    return anyio.run(fetch)


def reap(server: Server, ledger: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--url", server.url, "--token", server.token]
    command = [sys.executable, "-m", "kaleden", "reap", str(ledger), *where, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_at(moments: list[float], processes: list[subprocess.Popen[str]]) -> None:
    for moment, process in sorted(zip(moments, processes, strict=True), key=itemgetter(0)):
        time.sleep(max(0.0, moment - time.monotonic()))
        process.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == process.wait()


def time_of_a_launch(server: Server, ledger: Path) -> float:
    """Seconds that as many launches take as will be under way at once."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(launcher(server, ledger, f"probe-{number}", REPLICAS))
            for number in range(AT_ONCE)
        ]
        begun = begin(*processes)
        for process in processes:
            wait_for("launched", process)
        return time.monotonic() - begun


@pytest.mark.slow
def test_whenever_a_process_is_killed_its_sessions_are_reaped_and_no_others(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger"
    chance = random.Random(9)
    left: list[OpenLaunch] = []
    with local_platform() as server, launcher(server, ledger, "bystander", 3) as bystander:
        begin(bystander)
        wait_for("launched", bystander)
        untouched = running(server)
        assert 3 == len(untouched)
        within = time_of_a_launch(server, ledger)
        assert 0 == reap(server, ledger).returncode
        for _ in range(ROUNDS):
            with ExitStack() as stack:
                processes = [
                    stack.enter_context(launcher(server, ledger, f"killed-{number}", REPLICAS))
                    for number in range(AT_ONCE)
                ]
                begun = begin(*processes)
                # Whatever the moments are, what is tested must hold.
                kill_at([begun + within * chance.random() for _ in processes], processes)
            assert server.token not in ledger.read_text()
            left += [launch for launch in read_ledger(ledger) if launch.name not in untouched]
            done = reap(server, ledger, "--settle", "2")
            assert (0, "") == (done.returncode, done.stderr), done.stdout
            assert untouched == running(server)
            assert untouched == {launch.name for launch in read_ledger(ledger)}
        bystander.kill()
        bystander.wait()
        assert 0 == reap(server, ledger).returncode
        assert set() == running(server)
    # They were killed in the middle of launches, some of which had no answer yet.
    assert 0 < len(left) < ROUNDS * AT_ONCE * REPLICAS
    assert {True, False} == {launch.session_id is None for launch in left}
