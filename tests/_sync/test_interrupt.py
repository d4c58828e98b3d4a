"""Ctrl-C in programs that use `Session`: their sessions are destroyed before they end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("anycorn")

if sys.platform == "win32":
    pytest.skip("the signals of POSIX systems", allow_module_level=True)

from interruptions import (
    FOLLOW,
    GRACE,
    INFO,
    NO_LEDGER,
    RUN,
    SCOPE,
    STREAM,
    ProgramExit,
    interrupt,
    interrupt_after,
    list_sessions,
    read_until,
    start_program,
)
from kaleden import Session
from platforms import RunningServer, Server, local_platform
from support import PLAIN_BACKENDS

ROUNDS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with local_platform() as server:
        yield server


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@pytest.mark.parametrize(
    "text", [RUN, SCOPE, STREAM, FOLLOW], ids=["run", "scope", "stream", "follow"]
)
def test_interrupted_call_leaves_nothing(
    text: str, backend: str, server: Server, tmp_path: Path
) -> None:
    with start_program(text, server, backend, tmp_path / "ledger") as process:
        read_until("Running", process.stdout)
        end = interrupt(process)
    assert end.is_interruption, end.stderr
    assert [] == list_sessions(server)
    announced = 0 if text == STREAM else 1
    assert announced <= end.stderr.count(f"which may take up to {GRACE:g} seconds"), end.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@pytest.mark.parametrize("text", [RUN, INFO], ids=["run", "info"])
def test_interrupt_at_any_time_leaves_nothing(
    text: str, backend: str, server: Server, tmp_path: Path
) -> None:
    chance = random.Random(backend)
    for number in range(ROUNDS):
        end = interrupt_after(text, server, backend, tmp_path / str(number), chance.uniform(0, 1))
        assert end.is_interruption, end.stderr
        assert [] == list_sessions(server)


def interrupt_twice(text: str, server: RunningServer, backend: str, path: Path) -> ProgramExit:
    with start_program(text, server, backend, path) as process:
        read_until("Running", process.stdout)
        # A stopped server keeps the clean-up waiting until its grace ends.
        server.process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        read_until("another Ctrl-C leaves at once", process.stderr)
        end = interrupt(process)
        server.process.send_signal(signal.SIGCONT)
    assert end.is_interruption, end.stderr
    return end


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
@pytest.mark.parametrize(
    "text",
    [pytest.param(RUN, id="run"), pytest.param(SCOPE, id="scope", marks=pytest.mark.slow)],
)
def test_second_interrupt_exits_at_once_and_leaves_the_rest_to_reap(
    text: str, backend: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    with local_platform() as server:
        end = interrupt_twice(text, server, backend, ledger)
        count = 3 if text == RUN else 6
        message = f"up to {count} sessions may be left: `kaleden reap {ledger}` ends them"
        assert 1 == end.stderr.count(message), end.stderr
        reap = [sys.executable, "-m", "kaleden", "reap", "--url", server.url]
        reap += ["--token", server.token, "--create-timeout", "0.1", "--settle", "0.1", str(ledger)]
        assert 0 == subprocess.run(reap, check=False).returncode
        assert [] == list_sessions(server)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_second_interrupt_without_a_ledger_logs_how_to_destroy_the_rest(
    backend: str, tmp_path: Path
) -> None:
    with local_platform() as server:
        end = interrupt_twice(NO_LEDGER, server, backend, tmp_path)
        message = "up to 3 sessions may be left: `session.destroy_with('fits-', None, None)` ends"
        assert 1 == end.stderr.count(message), end.stderr
        with Session(server.url, server.token) as session:
            assert session.destroy_with("fits-", None, None).ok
        assert [] == list_sessions(server)
