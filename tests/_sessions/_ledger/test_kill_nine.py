"""Processes that are killed with ``kill -9`` during a launch, and the sessions that are left."""

from __future__ import annotations

import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

from kaleden._sessions._ledger._file import read_ledger
from killed import begin, kill_at, launcher, reap, running, start, wait_for
from platforms import RunningServer, local_platform

ROUNDS, AT_ONCE = 3, 10
"""Three rounds of ten processes, each killed when the ledger has a given number of its lines."""

REPLICAS = 20


def launch_and_kill(
    server: RunningServer, ledger: Path, prefix: str, line_counts: list[int]
) -> None:
    """Let processes launch, and kill each when the ledger has a given number of its lines.

    A launch has two lines: one before its request, and one after the response. The last process is
    killed while the server is stopped, so that its launches have no response.
    """
    with ExitStack() as stack:
        processes = [
            stack.enter_context(launcher(server, ledger, f"{prefix}-{number}", REPLICAS))
            for number in range(len(line_counts))
        ]
        *others, last = processes
        begin(*others)
        for number, process in enumerate(others):
            kill_at(line_counts[number], f"{prefix}-{number}", ledger, process)
        wait_for("ready", last)
        server.process.send_signal(signal.SIGSTOP)
        try:
            start(last)
            kill_at(line_counts[-1], f"{prefix}-{len(others)}", ledger, last)
        finally:
            server.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sessions_of_killed_processes_are_reaped_and_no_others(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger"
    random_source = random.Random(9)
    with local_platform() as server, launcher(server, ledger, "bystander", 3) as bystander:
        begin(bystander)
        wait_for("launched", bystander)
        untouched = running(server)
        assert 3 == len(untouched)
        for number in range(ROUNDS):
            # The first process is killed after its last response, so that some launches have ids.
            line_counts = [random_source.randint(1, 2 * REPLICAS) for _ in range(AT_ONCE - 2)]
            launch_and_kill(server, ledger, f"killed-{number}", [2 * REPLICAS, *line_counts, 1])
            # The server has read the requests of the killed processes before this one.
            assert untouched <= running(server)
            assert server.token not in ledger.read_text()
            left = [launch for launch in read_ledger(ledger) if launch.name not in untouched]
            # Some were launched, and others had no response yet.
            assert {True, False} == {launch.session_id is None for launch in left}
            done = reap(server, ledger, "--create-timeout", "4", "--settle", "1")
            assert (0, "") == (done.returncode, done.stderr), done.stdout
            assert untouched == running(server)
            assert untouched == {launch.name for launch in read_ledger(ledger)}
        bystander.kill()
        bystander.wait()
        assert 0 == reap(server, ledger).returncode
        assert set() == running(server)
