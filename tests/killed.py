"""Processes that launch sessions in a scope, to be killed, and what is done after that."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path

import anyio

import kaleden
from platforms import Server

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
