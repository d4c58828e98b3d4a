"""``kaleden demo``, run as a user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterable

import pytest

from programs import unasked
from support import PLAIN_BACKENDS

pytest.importorskip("rich")
pytest.importorskip("anycorn")

COMMAND = [sys.executable, "-m", "kaleden", "demo"]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def left_over(name: str) -> list[str]:
    """The command lines of processes that still bear a demo's name."""
    listed = run(["ps", "axeww", "-o", "args"])
    return [line for line in listed.stdout.splitlines() if name in line]


@pytest.mark.slow
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_the_demo_shows_successes_a_failure_and_leaves_nothing(backend: str) -> None:
    done = run([*COMMAND, "--backend", backend, "--replicas", "4"])
    assert (0, "") == (done.returncode, unasked(done.stderr))
    assert "Launching 4 sessions" in done.stdout
    assert "<Outcomes demo: 3 ok, 1 failed (session_failed=1)>" in done.stdout
    assert "no such file: night-2.fits" in done.stdout
    assert "in 3 of 4 shares" in done.stdout
    assert "Left on the platform: nothing" in done.stdout
    name = re.search(r"demo-[0-9a-f]{6}", done.stdout)
    assert name is not None
    assert [] == left_over(name[0])


@pytest.mark.slow
def test_one_replica_counts_all_primes() -> None:
    done = run([*COMMAND, "--replicas", "1"])
    assert (0, "") == (done.returncode, unasked(done.stderr))
    assert "78498 primes below 1000000 in 1 of 1 shares" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--url", "https://127.0.0.1:1/skaha", "--token", "two words"], "strip()", 2),
        (["--url", "http://example.org/skaha", "--token", "secret"], "use https", 2),
        (
            ["--url", "http://127.0.0.1:1/skaha", "--token", "secret"],
            "no connection to 127.0.0.1 port 1",
            1,
        ),
    ],
    ids=["token", "http", "nobody"],
)
def test_a_demo_that_cannot_work_says_why(arguments: list[str], words: str, status: int) -> None:
    done = run([*COMMAND, *arguments])
    assert status == done.returncode
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout


@pytest.mark.parametrize("number", ["0", "-3", "x", "1000000"])
def test_a_number_of_replicas_that_makes_no_sense_is_refused(number: str) -> None:
    done = run([*COMMAND, f"--replicas={number}"])
    assert 2 == done.returncode
    assert "--replicas" in done.stderr


# A demo whose replicas do not end by themselves.
ENDLESS = """
from kaleden._cli import main
from kaleden._cli._demo import _replica

_replica._PROGRAM += "\\nimport time\\ntime.sleep(600)\\n"
raise SystemExit(main())
"""


def until(words: str, lines: Iterable[str]) -> None:
    """Read lines up to one with these words."""
    assert any(words in line for line in lines)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_ctrl_c_ends_the_sessions_and_says_so(backend: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "demo", "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        until("Running", demo.stdout)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert 130 == demo.returncode
    assert "" == unasked(err)
    assert "interrupted\n" in out
    assert "Left on the platform: nothing" in out
    assert "shares" not in out
