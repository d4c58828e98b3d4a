"""All commands with a closed pipe or a full disk behind a standard stream."""

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

from _cli.invocation import (
    COMMAND,
    UNREACHABLE,
    Result,
    connection_options,
    list_names,
    start_sessions,
    wait_until_ended,
)
from kaleden._cli import build_parser, main
from kaleden._cli._parser import SHELLS
from kaleden._sessions._ledger._file import Event, OpenLaunch, append, encode
from kaleden._sessions._ledger._process import get_this_owner
from kaleden.local.__main__ import main as local_main
from platforms import Server
from support import IMAGE, PLAIN_BACKENDS

[COMMANDS] = [action.choices for action in build_parser()._actions if action.choices]
GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")
FULL = OSError(errno.ENOSPC, "No space left on device")
DEAD = evolve(get_this_owner("dead"), pid=2**22 + 1)
MAX_WRITES = 3
"""The largest number of writes after which the pipe is closed."""

WITHOUT_SERVER = [
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
"""Commands that work without a server."""

WITH_SERVER = [
    ["ps"],
    ["ps", "--quiet"],
    ["ps", "--json"],
    ["logs", "ID"],
    ["logs", "ID", "--json"],
    ["logs", "ID", "nosuchid"],
    ["logs", "ID", "--follow"],
    ["logs", "ID", "--follow", "--json"],
    ["rm", "--json", "nosuchid"],
    ["rm", "nosuchid", "--json"],
    ["rm", "--prefix", "logged", "--dry-run"],
    ["rm", "--prefix", "logged", "--dry-run", "--json"],
    ["reap", "LEDGER"],
    ["reap", "LEDGER", "--json"],
    ["reap", "LEDGER", "--dry-run"],
    ["reap", "LEDGER", "--dry-run", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["run", "reader", IMAGE, "--detach", "--", "true"],
    ["run", "reader", IMAGE, "--detach", "--json", "--", "true"],
]
"""Commands that send requests, and leave no running session."""


@pytest.fixture(autouse=True)
def enable_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enable Python's buffers of standard streams, which are flushed at exit."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


class Stream(io.StringIO):
    """A stream that accepts a number of writes, and fails all later ones."""

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
def open_pipe_without_reader() -> Iterator[int]:
    """Open a pipe, close its reading end, and yield the writing end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


class CommandRunner:
    """Runs commands in this process with replaced standard streams."""

    def __init__(self, server: Server, log_id: str, ledger: Path, capsys: Any) -> None:
        self._server = server
        self._log_id = log_id
        self._ledger = ledger
        self._capsys = capsys

    def fill_in(self, *arguments: str) -> list[str]:
        """Replace ID and LEDGER in the arguments, and add the options of the server."""
        launch = OpenLaunch("t1", "fits-t1", None, DEAD, f"{self._server.url}/v1", 0.0)
        self._ledger.unlink(missing_ok=True)
        append(self._ledger, encode(Event.LAUNCHING, [launch]))
        values = {"ID": self._log_id, "LEDGER": str(self._ledger)}
        first, *others = (values.get(each, each) for each in arguments)
        return [first, *connection_options(self._server), *others]

    def call(self, arguments: list[str], **streams: Any) -> Result:
        """Run a command with these standard streams."""
        with pytest.MonkeyPatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            try:
                status = main(arguments)
            except SystemExit as error:  # Raised by argparse.
                status = error.code if isinstance(error.code, int) else -1
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err)


@pytest.fixture(scope="module")
def log_id(server: Server) -> str:
    [key] = start_sessions(server, "logged", "echo", "hello world")
    wait_until_ended(server, [key])
    return key


@pytest.fixture
def runner(
    server: Server, log_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> CommandRunner:
    (tmp_path / "ledger").touch()
    return CommandRunner(server, log_id, tmp_path / "ledger", capsys)


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the program of the demo's replicas by one that prints a result at once."""
    pytest.importorskip("rich")
    monkeypatch.setattr("kaleden._cli._demo._replica._PROGRAM", "print('primes: 78498')\n")


def skip_without_extra(arguments: list[str]) -> None:
    if arguments[0] == "completion" and arguments[1:] != ["--help"]:
        pytest.importorskip("shtab")


@pytest.mark.parametrize("arguments", WITHOUT_SERVER, ids=" ".join)
def test_closed_pipe_exits_with_status_141(arguments: list[str], runner: CommandRunner) -> None:
    skip_without_extra(arguments)
    assert Result(141, "", "") == runner.call(arguments, stdout=Stream(0, GONE))
    with open_pipe_without_reader() as pipe, os.fdopen(os.dup(pipe), "w") as stdout:
        assert Result(141, "", "") == runner.call(arguments, stdout=stdout)


@pytest.mark.parametrize("arguments", WITH_SERVER, ids=" ".join)
def test_pipe_closed_between_writes_exits_with_status_141(
    arguments: list[str], runner: CommandRunner
) -> None:
    with open_pipe_without_reader() as pipe, os.fdopen(os.dup(pipe), "w") as stdout:
        assert 141 == runner.call(runner.fill_in(*arguments), stdout=stdout).status
    for writes in range(MAX_WRITES):
        stream = Stream(writes, GONE)
        result = runner.call(runner.fill_in(*arguments), stdout=stream)
        if not stream.has_failed:
            assert writes
            break
        assert 141 == result.status
        assert not re.search(r"Traceback|roken|kaleden:", result.err)


@pytest.mark.parametrize("writes", range(MAX_WRITES))
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_closed_pipe_ends_sessions_of_run(
    backend: str, writes: int, runner: CommandRunner, server: Server
) -> None:
    arguments = ["run", "ends", IMAGE, "--json", "--backend", backend, "--", "sleep", "600"]
    if writes == MAX_WRITES - 1:
        arguments[-2:] = ["echo", "hello"]
    assert 141 == runner.call(runner.fill_in(*arguments), stdout=Stream(writes, GONE)).status
    assert not any(name.startswith("ends") for name in list_names(server))


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("writes", range(MAX_WRITES))
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_closed_pipe_ends_sessions_of_demo(
    backend: str, writes: int, runner: CommandRunner, server: Server
) -> None:
    arguments = runner.fill_in("demo", "--replicas", "1", "--backend", backend)
    assert Result(141, "", "") == runner.call(arguments, stdout=Stream(writes, GONE))
    assert not any(name.startswith("demo") for name in list_names(server))


@pytest.mark.usefixtures("quick_demo")
def test_closed_pipe_ends_demo_with_json(runner: CommandRunner) -> None:
    result = runner.call(
        runner.fill_in("demo", "--replicas", "1", "--json"), stdout=Stream(0, GONE)
    )
    assert 141 == result.status
    assert "Left on the platform: nothing" in result.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--json"], ["--tls"]], ids=" ".join)
def test_closed_pipe_ends_kaleden_local(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(0, GONE))
    assert 141 == local_main(arguments)
    assert "" == capsys.readouterr().err


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("arguments", [*WITHOUT_SERVER, ["demo", *UNREACHABLE]], ids=" ".join)
def test_full_disk_exits_with_status_1(arguments: list[str], runner: CommandRunner) -> None:
    skip_without_extra(arguments)
    result = runner.call(arguments, stdout=Stream(0, FULL))
    message = "kaleden: the results cannot be written: [Errno 28] No space left on device\n"
    assert Result(1, "", message) == result


@pytest.mark.usefixtures("quick_demo")
@pytest.mark.parametrize("error", [GONE, FULL], ids=["gone", "full"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["ps", "--nonsense"], 2),
        (["reap", "/nonexistent/ledger"], 2),
        (["logs", "ID", "nosuchid"], 1),
        (["run", "printed", IMAGE, "--", "echo", "hello"], 0),
        (["demo", "--replicas", "1", "--json"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_failing_standard_error_changes_neither_results_nor_status(
    arguments: list[str], status: int, error: OSError, runner: CommandRunner
) -> None:
    stderr = Stream(0, error)
    result = runner.call(runner.fill_in(*arguments), stderr=stderr)
    assert status == result.status
    assert stderr.has_failed
    assert bool(result.out) == (status != 2)
    if arguments[0] == "run":
        assert "hello\n" == result.out


LOCAL = [sys.executable, "-m", "kaleden.local"]
# As on Windows: text is written through the stream, and stays in its buffer after a failed write.
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
def test_interpreter_prints_nothing_at_exit(command: list[str]) -> None:
    if "demo" in command:
        pytest.importorskip("rich")
    with open_pipe_without_reader() as pipe:
        result = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (141, "") == (result.returncode, result.stderr)


@pytest.mark.parametrize("arguments", [["ps", "--nonsense"], ["ps"]], ids=" ".join)
def test_interpreter_prints_nothing_at_exit_with_closed_standard_error(
    arguments: list[str],
) -> None:
    with open_pipe_without_reader() as pipe:
        result = subprocess.run(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=pipe, check=False
        )
    assert (2, b"") == (result.returncode, result.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("redirections", "status", "message"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 1, "kaleden: the results cannot be written"),
        (">/dev/full 2>&-", 1, ""),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_help_with_unwritable_output(redirections: str, status: int, message: str) -> None:
    if "full" in redirections and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    line = f'exec "$@" {redirections}'
    result = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, "--help"], capture_output=True, text=True, check=False
    )
    assert (status, "") == (result.returncode, result.stdout)
    assert result.stderr.startswith(message)
    assert bool(message) == bool(result.stderr)
    assert "Traceback" not in result.stderr


# A program that prints before, during and after a command.
EMBEDDING = """
import sys

print("before")
from kaleden._cli import main, _main

def command(options, output):
    output.write_line("first")
    sys.stdout.writelines(["second", chr(10)])
    sys.stdout.buffer.write(b"third\\n")
    print("fourth", flush=True)
    sys.stdout.buffer.write(b"fifth\\n")
    return 0

_main._load_command = lambda name: command
status = main(["doctor"])
print("after")
sys.exit(status)
"""


def test_output_keeps_its_order() -> None:
    command = [sys.executable, "-c", EMBEDDING]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    written = ["before", "first", "second", "third", "fourth", "fifth", "after"]
    assert (written, "") == (result.stdout.split(), result.stderr)
