"""All commands when the reader of a standard stream is gone, at any moment, or a disk is full."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from _cli.called import COMMAND, IMAGE, NOWHERE, Done, ended, names, start, where
from kaleden._cli import build_parser, main
from kaleden._cli._parser import SHELLS
from kaleden._sessions._ledger._file import Event, OpenLaunch, append, encode
from kaleden._sessions._ledger._process import get_this_owner
from kaleden.local.__main__ import main as local_main
from platforms import Server
from support import PLAIN_BACKENDS

[COMMANDS] = [action.choices for action in build_parser()._actions if action.choices]
GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")
FULL = OSError(errno.ENOSPC, "No space left on device")
DEAD = evolve(get_this_owner("dead"), pid=2**22 + 1)
WRITES = 3
"""Writes of a command that are tried one after the other."""

ALONE = [
    ["--help"],
    ["--version"],
    *([name, "--help"] for name in COMMANDS),
    *(["completion", shell] for shell in SHELLS),
    ["serve"],
    ["serve", "--json"],
    ["serve", "--tls"],
    ["doctor"],
    ["doctor", "--json"],
]
"""Commands that need no server."""

ASKING = [
    ["ps"],
    ["ps", "--quiet"],
    ["ps", "--json"],
    ["logs", "ID"],
    ["logs", "ID", "--json"],
    ["logs", "ID", "nosuchid"],
    ["logs", "ID", "--follow"],
    ["logs", "ID", "--follow", "--json"],
    ["rm", "nosuchid"],
    ["rm", "nosuchid", "--json"],
    ["rm", "--prefix", "said", "--dry-run"],
    ["rm", "--prefix", "said", "--dry-run", "--json"],
    ["reap", "LEDGER"],
    ["reap", "LEDGER", "--json"],
    ["reap", "LEDGER", "--dry-run"],
    ["reap", "LEDGER", "--dry-run", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["run", "reader", IMAGE, "--detach", "--", "true"],
    ["run", "reader", IMAGE, "--detach", "--json", "--", "true"],
]
"""Commands that ask a server, and leave nothing that has to end."""


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python's own streams have their buffers, whose content is flushed at exit."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


class Stream(io.StringIO):
    """A stream that takes so many writes, and fails all later ones."""

    def __init__(self, writes: int, error: OSError) -> None:
        super().__init__()
        self.has_failed = False
        self._writes = writes
        self._error = error

    def write(self, text: str) -> int:
        if not self._writes:
            self.has_failed = True
            raise self._error
        self._writes -= 1
        return super().write(text)


@contextmanager
def unread() -> Iterator[int]:
    """The writing end of a pipe that has no reader."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


class Cases:
    """Runs commands in this process, each with a standard output of its own."""

    def __init__(self, server: Server, said: str, ledger: Path, capsys: Any) -> None:
        self._server = server
        self._said = said
        self._ledger = ledger
        self._capsys = capsys

    def words(self, *words: str) -> list[str]:
        """Fill in the server, the id of a session that has written, and a ledger."""
        launch = OpenLaunch("t1", "fits-t1", None, DEAD, f"{self._server.url}/v1", 0.0)
        self._ledger.unlink(missing_ok=True)
        append(self._ledger, encode(Event.LAUNCHING, [launch]))
        filled = {"ID": self._said, "LEDGER": str(self._ledger)}
        first, *others = (filled.get(word, word) for word in words)
        return [first, *where(self._server), *others]

    def call(self, words: list[str], **streams: Any) -> Done:
        """Run a command with other standard streams."""
        with pytest.MonkeyPatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            try:
                status = main(words)
            except SystemExit as error:  # argparse's
                status = error.code if isinstance(error.code, int) else -1
        captured = self._capsys.readouterr()
        return Done(status, captured.out, captured.err)


@pytest.fixture(scope="module")
def said(server: Server) -> str:
    [key] = start(server, "said", "echo", "hello world")
    ended(server, [key])
    return key


@pytest.fixture
def cases(server: Server, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cases:
    (tmp_path / "ledger").touch()
    return Cases(server, said, tmp_path / "ledger", capsys)


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo whose replicas print a result at once."""
    pytest.importorskip("rich")
    monkeypatch.setattr("kaleden._cli._demo._replica._PROGRAM", "print('primes: 78498')\n")


def needs_its_extra(words: list[str]) -> None:
    if words[0] == "completion" and words[1:] != ["--help"]:
        pytest.importorskip("shtab")


@pytest.mark.parametrize("words", ALONE, ids=" ".join)
def test_a_reader_that_is_gone_is_status_141(words: list[str], cases: Cases) -> None:
    needs_its_extra(words)
    assert Done(141, "", "") == cases.call(words, stdout=Stream(0, GONE))
    with unread() as pipe, os.fdopen(os.dup(pipe), "w") as stdout:
        assert Done(141, "", "") == cases.call(words, stdout=stdout)


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_a_reader_that_goes_between_any_two_writes_is_status_141(
    words: list[str], cases: Cases
) -> None:
    with unread() as pipe, os.fdopen(os.dup(pipe), "w") as stdout:
        assert 141 == cases.call(cases.words(*words), stdout=stdout).status
    for writes in range(WRITES):
        stream = Stream(writes, GONE)
        done = cases.call(cases.words(*words), stdout=stream)
        if not stream.has_failed:
            assert writes
            break
        assert 141 == done.status
        assert not re.search(r"Traceback|roken|kaleden:", done.err)


@pytest.mark.parametrize("writes", range(WRITES))
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_the_sessions_of_a_run_end_with_its_reader(
    backend: str, writes: int, cases: Cases, server: Server
) -> None:
    words = ["run", "ends", IMAGE, "--json", "--backend", backend, "--", "sleep", "600"]
    if writes == WRITES - 1:
        words[-2:] = ["echo", "hello"]
    assert 141 == cases.call(cases.words(*words), stdout=Stream(writes, GONE)).status
    assert not any(name.startswith("ends") for name in names(server))


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("writes", range(WRITES))
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_the_sessions_of_a_demo_end_with_its_reader(
    backend: str, writes: int, cases: Cases, server: Server
) -> None:
    words = cases.words("demo", "--replicas", "1", "--backend", backend)
    assert Done(141, "", "") == cases.call(words, stdout=Stream(writes, GONE))
    assert not any(name.startswith("demo") for name in names(server))


@pytest.mark.usefixtures("quick_demo")
def test_a_demo_in_json_ends_with_its_reader_too(cases: Cases) -> None:
    done = cases.call(cases.words("demo", "--replicas", "1", "--json"), stdout=Stream(0, GONE))
    assert 141 == done.status
    assert "Left on the platform: nothing" in done.err


@pytest.mark.parametrize("words", [[], ["--help"], ["--json"], ["--tls"]], ids=" ".join)
def test_the_other_way_to_serve_ends_with_its_reader(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(0, GONE))
    assert 141 == local_main(words)
    assert "" == capsys.readouterr().err


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("words", [*ALONE, ["demo", *NOWHERE]], ids=" ".join)
def test_a_full_disk_is_status_1(words: list[str], cases: Cases) -> None:
    needs_its_extra(words)
    done = cases.call(words, stdout=Stream(0, FULL))
    message = "kaleden: the results cannot be written: [Errno 28] No space left on device\n"
    assert Done(1, "", message) == done


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("error", [GONE, FULL], ids=["gone", "full"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["ps", "--nonsense"], 2),
        (["reap", "/nonexistent/ledger"], 2),
        (["logs", "ID", "nosuchid"], 1),
        (["run", "heard", IMAGE, "--", "echo", "hello"], 0),
        (["demo", "--replicas", "1", "--json"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_without_standard_error_the_results_are_written_and_the_status_is_the_same(
    words: list[str], status: int, error: OSError, cases: Cases
) -> None:
    stderr = Stream(0, error)
    done = cases.call(cases.words(*words), stderr=stderr)
    assert status == done.status
    assert stderr.has_failed
    assert bool(done.out) == (status != 2)
    if words[0] == "run":
        assert "hello\n" == done.out


LOCAL = [sys.executable, "-m", "kaleden.local"]
# As on Windows: the stream itself writes, and its buffer keeps the text that it could not write.
BUFFERED = """
from kaleden._cli import _io, main

_io._Stream.descriptor = lambda self: None
raise SystemExit(main())
"""


@pytest.mark.parametrize(
    "command",
    [
        [*COMMAND, "--help"],
        [sys.executable, "-u", "-m", "kaleden", "--help"],
        [*COMMAND, "run", "--help"],
        [*COMMAND, "doctor"],
        [*COMMAND, "demo", "--replicas", "1"],
        [*COMMAND, "serve", "--json"],
        LOCAL,
        [sys.executable, "-c", BUFFERED, "--version"],
    ],
    ids=lambda command: " ".join(command[2:]).replace(BUFFERED, "buffered"),
)
def test_python_adds_nothing_at_exit(command: list[str]) -> None:
    if "demo" in command:
        pytest.importorskip("rich")
    with unread() as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (141, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("words", [["ps", "--nonsense"], ["ps"]], ids=" ".join)
def test_python_adds_nothing_at_exit_without_standard_error_either(words: list[str]) -> None:
    with unread() as pipe:
        done = subprocess.run([*COMMAND, *words], stdout=subprocess.PIPE, stderr=pipe, check=False)
    assert (2, b"") == (done.returncode, done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="its shell has other redirections")
@pytest.mark.parametrize(
    ("redirections", "status", "words"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 1, "kaleden: the results cannot be written"),
        (">/dev/full 2>&-", 1, ""),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_help_that_cannot_be_shown(redirections: str, status: int, words: str) -> None:
    if "full" in redirections and not Path("/dev/full").exists():
        pytest.skip("there is no disk that is full")
    line = f'exec "$@" {redirections}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, "--help"], capture_output=True, text=True, check=False
    )
    assert (status, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(words)
    assert bool(words) == bool(done.stderr)
    assert "Traceback" not in done.stderr


# The text of a program that calls a command, and of what it runs, which is written in their order.
EMBEDDING = """
import sys

print("before")
from kaleden._cli import main, _main

def command(options, output):
    output.line("first")
    sys.stdout.writelines(["second", chr(10)])
    sys.stdout.buffer.write(b"third\\n")
    print("fourth", flush=True)
    sys.stdout.buffer.write(b"fifth\\n")
    return 0

_main._command = lambda name: command
status = main(["doctor"])
print("after")
sys.exit(status)
"""


def test_text_is_written_in_its_order() -> None:
    command = [sys.executable, "-c", EMBEDDING]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = ["before", "first", "second", "third", "fourth", "fifth", "after"]
    assert (written, "") == (done.stdout.split(), done.stderr)
