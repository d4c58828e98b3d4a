"""``kaleden run``, when something goes wrong or somebody stops it: nothing is left, or it is named.

In processes of their own, since signals and broken pipes are between processes.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from _cli.called import IMAGE, names, process, where
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultPlan, FaultProxy
from platforms import Server
from support import PLAIN_BACKENDS

FOREVER = ["--", "sleep", "600"]
# Writes more than a pipe holds, and then does not end.
TALK = "print(*range(10**5),sep=chr(10),flush=True);__import__('time').sleep(600)"
TALKER = ["--", "python3", "-c", TALK]


def read_until(words: str, running: subprocess.Popen[str]) -> None:
    """Read standard error up to a line with these words."""
    assert running.stderr is not None
    assert any(words in line for line in running.stderr)


def left(server: Server, name: str) -> list[str]:
    return [each for each in names(server) if each.startswith(f"{name}-")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_a_signal_ends_all_sessions(backend: str, number: signal.Signals, server: Server) -> None:
    words = ["run", "struck", IMAGE, *where(server), "--replicas", "3", "--backend", backend]
    with process(*words, *FOREVER) as running:
        read_until("3 Running", running)
        assert 3 == len(left(server, "struck"))
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (128 + number, "") == (running.returncode, out)
    assert err.startswith("interrupted\n") or "\ninterrupted\n" in err
    assert err.endswith("all sessions of this run have ended\n")
    assert [] == left(server, "struck")


def test_a_signal_while_it_launches_ends_what_has_been_launched(server: Server) -> None:
    words = ["run", "early", IMAGE, *where(server), "--replicas", "30"]
    with process(*words, *FOREVER) as running:
        while not left(server, "early"):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert 130 == running.returncode
    assert [] == left(server, "early")


def test_nohup_means_no_hang_up(server: Server) -> None:
    words = ["run", "nohup", IMAGE, *where(server)]
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with process(*words, *FOREVER, **ignored) as running:
        read_until("1 Running", running)
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert 130 == running.returncode


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_who_stops_reading_ends_all_sessions(backend: str, server: Server) -> None:
    words = ["run", "head", IMAGE, *where(server), "--backend", backend]
    with process(*words, *TALKER) as running:
        assert running.stdout is not None
        assert "0\n" == running.stdout.readline()
        running.stdout.close()
        assert 141 == running.wait(60)
    assert [] == left(server, "head")


@pytest.mark.skipif(sys.platform != "linux", reason="pipes have their size elsewhere")
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_ctrl_c_is_heard_while_nobody_reads(backend: str, server: Server) -> None:
    """As in a pager that waits for a key: the pipe is full, and the write waits."""
    words = ["run", "pager", IMAGE, *where(server), "--backend", backend]
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    with process(*words, *TALKER, stdout=theirs) as running:
        os.close(theirs)
        # It can be read from: more than it holds is on its way.
        select.select([ours], [], [])
        running.send_signal(signal.SIGINT)
        assert 130 == running.wait(60)
    os.close(ours)
    assert [] == left(server, "pager")


def run_stuck(*words: str, signals: int) -> tuple[int, str, str]:
    """Run a command where no delete is answered, and signal so many times, or stop reading."""

    async def run() -> tuple[int, str, str]:
        plan = FaultPlan([Fault("stall", on="destroy")])
        async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
            place = Server(proxy.url, platform.token)
            return await anyio.to_thread.run_sync(_strike, words, place, signals)

    return anyio.run(run)


def _strike(words: tuple[str, ...], place: Server, signals: int) -> tuple[int, str, str]:
    with process("run", "stuck", IMAGE, *where(place), *words, *FOREVER) as running:
        if not signals:
            assert running.stdout is not None
            assert running.stdout.readline()
            running.stdout.close()
            _, err = running.communicate(timeout=60)
            return running.returncode, "", err

        read_until("1 Running", running)
        running.send_signal(signal.SIGINT)
        if signals > 1:
            read_until("ending 1 sessions", running)
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    return running.returncode, out, err


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_what_could_not_be_ended_is_named_and_the_status_is_1(backend: str) -> None:
    status, out, err = run_stuck("--grace", "1", "--backend", backend, signals=1)
    assert (1, "") == (status, out)
    assert re.search(r"kaleden: these sessions may be left: [a-z0-9]{8}\n", err)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_what_could_not_be_ended_is_named_when_the_reader_has_gone_too(backend: str) -> None:
    status, _, err = run_stuck("--grace", "1", "--backend", backend, "--json", signals=0)
    assert 1 == status
    assert re.search(r"these sessions may be left: [a-z0-9]{8}\n", err)
    assert "Traceback" not in err


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_a_second_ctrl_c_leaves_at_once_and_says_how_to_end_the_rest(
    backend: str, tmp_path: Path
) -> None:
    words = ["--grace", "3600", "--backend", backend]
    status, _, err = run_stuck(*words, signals=2)
    assert 130 == status
    assert "interrupted again: up to 1 sessions may be left" in err
    ledger = tmp_path / "ledger"
    status, _, err = run_stuck(*words, "--ledger", str(ledger), signals=2)
    assert 130 == status
    assert f"`kaleden reap {ledger}` ends them" in err
    assert ledger.read_bytes()
