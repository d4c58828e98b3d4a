"""``kaleden run`` with signals, closed pipes and faults: sessions are ended or listed.

Each command runs in a new process, which receives the signal or has the closed pipe.
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

from _cli.invocation import connection_options, list_names, start_process
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultPlan, FaultProxy
from platforms import Server
from support import IMAGE, PLAIN_BACKENDS

FOREVER = ["--", "sleep", "600"]
# Writes more than the capacity of a pipe, and then sleeps.
CHATTY_PROGRAM = "print(*range(10**5),sep=chr(10),flush=True);__import__('time').sleep(600)"
CHATTY = ["--", "python3", "-c", CHATTY_PROGRAM]


def read_until(text: str, running: subprocess.Popen[str]) -> None:
    """Read standard error up to a line that contains *text*."""
    assert running.stderr is not None
    assert any(text in line for line in running.stderr)


def list_left(server: Server, name: str) -> list[str]:
    return [each for each in list_names(server) if each.startswith(f"{name}-")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_signal_ends_all_sessions(backend: str, number: signal.Signals, server: Server) -> None:
    arguments = [
        "run",
        "struck",
        IMAGE,
        *connection_options(server),
        "--replicas",
        "3",
        "--backend",
        backend,
    ]
    with start_process(*arguments, *FOREVER) as running:
        read_until("3 Running", running)
        assert 3 == len(list_left(server, "struck"))
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (128 + number, "") == (running.returncode, out)
    assert err.startswith("interrupted\n") or "\ninterrupted\n" in err
    assert err.endswith("all sessions of this run have ended\n")
    assert [] == list_left(server, "struck")


def test_signal_during_launch_ends_launched_sessions(server: Server) -> None:
    arguments = ["run", "early", IMAGE, *connection_options(server), "--replicas", "30"]
    with start_process(*arguments, *FOREVER) as running:
        while not list_left(server, "early"):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert 130 == running.returncode
    assert [] == list_left(server, "early")


def test_sighup_is_ignored_under_nohup(server: Server) -> None:
    arguments = ["run", "nohup", IMAGE, *connection_options(server)]
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start_process(*arguments, *FOREVER, **ignored) as running:
        read_until("1 Running", running)
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert 130 == running.returncode


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_closed_pipe_ends_all_sessions(backend: str, server: Server) -> None:
    arguments = ["run", "head", IMAGE, *connection_options(server), "--backend", backend]
    with start_process(*arguments, *CHATTY) as running:
        assert running.stdout is not None
        assert "0\n" == running.stdout.readline()
        running.stdout.close()
        assert 141 == running.wait(60)
    assert [] == list_left(server, "head")


@pytest.mark.skipif(sys.platform != "linux", reason="needs F_SETPIPE_SZ")
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_ctrl_c_works_while_pipe_is_full(backend: str, server: Server) -> None:
    """The reader does not read, as a pager that waits for a key: the write waits."""
    arguments = ["run", "pager", IMAGE, *connection_options(server), "--backend", backend]
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    with start_process(*arguments, *CHATTY, stdout=theirs) as running:
        os.close(theirs)
        # Readable: the program has begun to write more than the pipe holds.
        select.select([ours], [], [])
        running.send_signal(signal.SIGINT)
        assert 130 == running.wait(60)
    os.close(ours)
    assert [] == list_left(server, "pager")


def run_stuck(*arguments: str, signals: int) -> tuple[int, str, str]:
    """Run a command on a server that never responds to deletes.

    Args:
        arguments: further arguments.
        signals: how many times to send SIGINT; 0 closes standard output instead.

    Returns:
        The exit status, standard output and standard error.
    """

    async def run() -> tuple[int, str, str]:
        plan = FaultPlan([Fault("stall", on="destroy")])
        async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
            server = Server(proxy.url, platform.token)
            return await anyio.to_thread.run_sync(_interrupt, arguments, server, signals)

    return anyio.run(run)


def _interrupt(arguments: tuple[str, ...], server: Server, signals: int) -> tuple[int, str, str]:
    with start_process(
        "run", "stuck", IMAGE, *connection_options(server), *arguments, *FOREVER
    ) as running:
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
def test_session_that_is_left_is_listed_with_status_1(backend: str) -> None:
    status, out, err = run_stuck("--grace", "1", "--backend", backend, signals=1)
    assert (1, "") == (status, out)
    assert re.search(r"kaleden: these sessions may be left: [a-z0-9]{8}\n", err)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_session_that_is_left_is_listed_after_closed_pipe(backend: str) -> None:
    status, _, err = run_stuck("--grace", "1", "--backend", backend, "--json", signals=0)
    assert 1 == status
    assert re.search(r"these sessions may be left: [a-z0-9]{8}\n", err)
    assert "Traceback" not in err


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_second_ctrl_c_exits_at_once_and_lists_sessions(backend: str, tmp_path: Path) -> None:
    arguments = ["--grace", "3600", "--backend", backend]
    status, _, err = run_stuck(*arguments, signals=2)
    assert 130 == status
    assert "interrupted again: up to 1 sessions may be left" in err
    ledger = tmp_path / "ledger"
    status, _, err = run_stuck(*arguments, "--ledger", str(ledger), signals=2)
    assert 130 == status
    assert f"`kaleden reap {ledger}` ends them" in err
    assert ledger.read_bytes()
