"""Processes that launch sessions in a scope and are killed, and helpers for them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

import kaleden
from platforms import Server
from support import poll_until

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
    """Start a process that launches sessions in a scope, and kill it at the end of the block."""
    arguments = [server.url, server.token, str(ledger), name, str(replicas)]
    command = [sys.executable, "-c", LAUNCHER, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(line: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert f"{line}\n" == process.stdout.readline()


def begin(*processes: subprocess.Popen[str]) -> None:
    """Start the launches of all processes at the same time."""
    for process in processes:
        wait_for("ready", process)
    for process in processes:
        start(process)


def start(process: subprocess.Popen[str]) -> None:
    """Start the launch of a process that is ready."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def running(server: Server) -> set[str]:
    async def fetch() -> set[str]:
        async with kaleden.AsyncSession(server.url, server.token) as session:
            return {info.name for info in await session.fetch()}

    return anyio.run(fetch)


def reap(server: Server, ledger: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--url", server.url, "--token", server.token]
    command = [sys.executable, "-m", "kaleden", "reap", str(ledger), *where, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_at(lines: int, name: str, ledger: Path, process: subprocess.Popen[str]) -> None:
    """Kill a process when the ledger has at least *lines* lines about its launches."""

    def has_lines() -> bool:
        return ledger.read_bytes().count(f'"{name}-'.encode()) >= lines

    poll_until(has_lines)
    process.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL == process.wait()
