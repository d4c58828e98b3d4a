"""After ``kill -9``, `reap` ends the sessions of the dead process, and nothing else."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

from kaleden._sessions._ledger._file import read_ledger
from killed import begin, kill_at, launcher, reap, running, wait_for
from platforms import local_platform

AT_ONCE, REPLICAS = 3, 5


def test_reap_ends_only_sessions_of_dead_processes(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    chance = random.Random(16)
    with ExitStack() as stack:
        server = stack.enter_context(local_platform())
        survivor = stack.enter_context(launcher(server, ledger, "survivor", 2))
        begin(survivor)
        wait_for("launched", survivor)
        untouched = running(server)
        doomed = [
            stack.enter_context(launcher(server, ledger, f"killed-{number}", REPLICAS))
            for number in range(AT_ONCE)
        ]
        begin(*doomed)
        # A launch writes two lines: one before its request, and one after the response.
        for number, process in enumerate(doomed):
            kill_at(chance.randint(1, 2 * REPLICAS), f"killed-{number}", ledger, process)
        # The server has read the requests of the killed processes before this one.
        assert untouched <= running(server)
        done = reap(server, ledger, "--create-timeout", "1", "--settle", "1")
        assert (0, "") == (done.returncode, done.stderr), done.stdout
        assert untouched == running(server)
        assert untouched == {launch.name for launch in read_ledger(ledger)}
