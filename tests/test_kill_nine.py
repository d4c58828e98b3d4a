"""Processes that are killed with ``kill -9`` in the middle of a launch, and what is left then."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

from kaleden._ledger_file import OpenLaunch, read_ledger
from killed import begin, kill_at, launcher, reap, running, wait_for
from platforms import Server, local_platform

ROUNDS, AT_ONCE = 5, 10
"""Five times ten processes, each killed at a moment of its own."""

REPLICAS = 20


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
