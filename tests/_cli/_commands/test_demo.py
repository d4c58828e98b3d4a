"""``kaleden demo`` in a new process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterable

import pytest

from programs import remove_cleanup_messages
from support import PLAIN_BACKENDS

pytest.importorskip("rich")
pytest.importorskip("anycorn")

COMMAND = [sys.executable, "-m", "kaleden", "demo"]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def list_processes(name: str) -> list[str]:
    """Return the command lines of processes that contain a demo's name."""
    listed = run(["ps", "axeww", "-o", "args"])
    return [line for line in listed.stdout.splitlines() if name in line]


@pytest.mark.slow
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_demo_prints_outcomes_and_leaves_no_session(backend: str) -> None:
    result = run([*COMMAND, "--backend", backend, "--replicas", "4"])
    assert (0, "") == (result.returncode, remove_cleanup_messages(result.stderr))
    assert "Launching 4 sessions" in result.stdout
    assert "<Outcomes demo: 3 ok, 1 failed (session_failed=1)>" in result.stdout
    assert "no such file: night-2.fits" in result.stdout
    assert "in 3 of 4 shares" in result.stdout
    assert "Left on the platform: nothing" in result.stdout
    name = re.search(r"demo-[0-9a-f]{6}", result.stdout)
    assert name is not None
    assert [] == list_processes(name[0])


@pytest.mark.slow
def test_single_replica_counts_all_primes() -> None:
    result = run([*COMMAND, "--replicas", "1"])
    assert (0, "") == (result.returncode, remove_cleanup_messages(result.stderr))
    assert "78498 primes below 1000000 in 1 of 1 shares" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["--url", "https://127.0.0.1:1/skaha", "--token", "two words"], "strip()", 2),
        (["--url", "http://example.org/skaha", "--token", "secret"], "use https", 2),
        (
            ["--url", "http://127.0.0.1:1/skaha", "--token", "secret"],
            "no connection to 127.0.0.1 port 1",
            1,
        ),
    ],
    ids=["token", "http", "unreachable"],
)
def test_failed_start_is_explained(arguments: list[str], message: str, status: int) -> None:
    result = run([*COMMAND, *arguments])
    assert status == result.returncode
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr + result.stdout


@pytest.mark.parametrize("number", ["0", "-3", "x", "1000000"])
def test_invalid_number_of_replicas_is_rejected(number: str) -> None:
    result = run([*COMMAND, f"--replicas={number}"])
    assert 2 == result.returncode
    assert "--replicas" in result.stderr


# A demo with replicas that run until they are ended.
ENDLESS = """
from kaleden._cli import main
from kaleden._cli._demo import _replica

_replica._PROGRAM += "\\nimport time\\ntime.sleep(600)\\n"
raise SystemExit(main())
"""


def read_until(text: str, lines: Iterable[str]) -> None:
    """Read lines up to one that contains *text*."""
    assert any(text in line for line in lines)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_ctrl_c_ends_sessions_and_is_reported(backend: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "demo", "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        read_until("Running", demo.stdout)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert 130 == demo.returncode
    assert "" == remove_cleanup_messages(err)
    assert "interrupted\n" in out
    assert "Left on the platform: nothing" in out
    assert "shares" not in out
