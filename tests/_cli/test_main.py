"""Options, exit statuses and error messages of all commands."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kaleden
from _cli.invocation import COMMAND, UNREACHABLE, Caller, start_process
from kaleden import FailureKind
from kaleden._cli import _main, build_parser
from kaleden._cli._io import CannotWrite, ReaderGone
from kaleden._results._batch import Failure
from platforms import Server
from support import HAS_TRIO, IMAGE

LOST = Failure("fetch", FailureKind.CONNECTION_LOST, "it broke")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (kaleden.ConfigurationError("no url"), 2, "kaleden: no url\n"),
        (kaleden.InvalidRequest("bad name"), 2, "kaleden: bad name\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "No such file"),
        (ImportError("install it"), 2, "kaleden: install it\n"),
        (LOST.to_exception(), 1, "it broke"),
        (kaleden.ScopeError(("abc12345",)), 1, "abc12345"),
        (CannotWrite("no space left"), 1, "no space left"),
        (ReaderGone("no reader"), 141, ""),
        (BrokenPipeError(32, "Broken pipe"), 2, "Broken pipe"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BaseExceptionGroup("", [LOST.to_exception(), KeyboardInterrupt()]), 130, "interrupted\n"),
        (ExceptionGroup("", [ExceptionGroup("", [ReaderGone()])]), 141, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_is_mapped_to_exit_status(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    call_alone: Caller,
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(_main, "_load_command", lambda _: fail)
    result = call_alone("ps")
    assert (status, "") == (result.status, result.out)
    assert message in result.err
    assert bool(message) == bool(result.err)


def test_unexpected_error_propagates(monkeypatch: pytest.MonkeyPatch, call_alone: Caller) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(_main, "_load_command", lambda _: fail)
    with pytest.raises(ZeroDivisionError):
        call_alone("ps")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["ps", "more"],
        ["ps", "--view", "some"],
        ["ps", "--timeout", "0"],
        ["ps", "--timeout", "soon"],
        ["ps", "--timeout", "inf"],
        ["ps", "--token", "a", "--token-file", "b"],
        ["ps", "--quiet", "--json"],
        ["run", "fits"],
        ["run", "fits", IMAGE, "--replicas", "0"],
        ["run", "fits", IMAGE, "--replicas", "99999999999"],
        ["run", "fits", IMAGE, "--replicas", "٣"],
        ["run", "fits", IMAGE, "--cores", "nan"],
        ["run", "fits", IMAGE, "--ram", "1.5"],
        ["run", "fits", IMAGE, "-e", "NOT_SET_ANYWHERE"],
        ["run", "fits", IMAGE, "--release", "--detach"],
        ["logs"],
        ["reap"],
        ["completion", "cmd.exe"],
    ],
    ids=" ".join,
)
def test_invalid_arguments_exit_with_status_2(arguments: list[str], call_alone: Caller) -> None:
    result = call_alone(*arguments) if arguments else call_alone("--")
    assert 2 == result.status
    assert "usage: kaleden" in result.err
    assert "" == result.out


def test_missing_server_is_explained(call_alone: Caller) -> None:
    result = call_alone("ps")
    assert (2, "") == (result.status, result.out)
    assert "canfar login" in result.err


def test_unreachable_server_exits_with_status_1(call_alone: Caller) -> None:
    result = call_alone("ps", *UNREACHABLE)
    assert (1, "") == (result.status, result.out)
    assert "no connection to 127.0.0.1 port 1" in result.err
    assert result.err.endswith(": see `kaleden doctor`\n")
    assert "secret" not in result.err


def test_rejected_login_refers_to_doctor(server: Server, call_alone: Caller) -> None:
    result = call_alone("ps", "--url", server.url, "--token", "wrong")
    assert 1 == result.status
    assert "see `kaleden doctor`" in result.err


def test_token_is_read_from_file(server: Server, tmp_path: Path, call_alone: Caller) -> None:
    path = tmp_path / "token"
    path.write_text(f"{server.token}\n")
    result = call_alone("ps", "--url", server.url, "--token-file", str(path), "--json")
    assert (0, "") == (result.status, result.err)


def test_token_is_read_from_standard_input(server: Server) -> None:
    arguments = ["ps", "--url", server.url, "--token-file", "-", "--json"]
    result = subprocess.run(
        [*COMMAND, *arguments],
        input=f"{server.token}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (result.returncode, result.stderr)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfe", "is not UTF-8 text")],
)
def test_file_without_token_is_rejected(
    content: bytes, message: str, tmp_path: Path, call_alone: Caller
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    result = call_alone("ps", *UNREACHABLE[:2], "--token-file", str(path))
    assert 2 == result.status
    assert message in result.err


def test_closed_standard_input_has_no_token(
    monkeypatch: pytest.MonkeyPatch, call_alone: Caller
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    result = call_alone("ps", *UNREACHABLE[:2], "--token-file", "-")
    assert 2 == result.status
    assert "'-' is empty" in result.err


@pytest.mark.skipif(HAS_TRIO, reason="trio is installed")
def test_missing_trio_is_explained(call: Caller) -> None:
    result = call("ps", "--backend", "trio")
    assert 2 == result.status
    assert "kaleden[trio]" in result.err


def test_closed_pipe_exits_silently(server: Server) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    arguments = ["ps", "--url", server.url, "--token", server.token, "--json"]
    with start_process(*arguments, stdout=theirs) as running:
        os.close(theirs)
        assert 141 == running.wait(60)
        assert running.stderr is not None
        assert "" == running.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_reported(server: Server) -> None:
    with open("/dev/full", "w") as full:
        arguments = ["ps", "--url", server.url, "--token", server.token, "--json"]
        with start_process(*arguments, stdout=full) as running:
            assert 1 == running.wait(60)
            assert running.stderr is not None
            assert "the results cannot be written" in running.stderr.read()


def test_closed_standard_output_is_ignored(server: Server) -> None:
    arguments = ["ps", "--url", server.url, "--token", server.token, "--json"]
    line = 'exec "$@" >&-'
    result = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    assert (0, "") == (result.returncode, result.stderr)


def test_parser_imports_no_optional_dependency() -> None:
    code = (
        "import sys; from kaleden._cli import build_parser; build_parser();"
        "print([name for name in ('rich', 'shtab', 'kaleden.local', 'httpx') "
        "if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ("[]\n", "") == (result.stdout, result.stderr)


def test_every_command_has_module_and_description() -> None:
    commands = _get_commands(build_parser())
    assert {
        "completion",
        "demo",
        "doctor",
        "logs",
        "ps",
        "reap",
        "rm",
        "run",
        "serve",
    } == set(commands)
    for name, parser in commands.items():
        assert callable(_main._load_command(name))
        assert parser.description


@pytest.mark.parametrize("command", ["demo", "logs", "ps", "reap", "rm", "run", "serve", "doctor"])
def test_command_has_json_option(command: str) -> None:
    assert "--json" in _get_commands(build_parser())[command].format_help()


def _get_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [commands] = [action for action in parser._actions if isinstance(action.choices, dict)]
    assert isinstance(commands.choices, dict)
    return commands.choices
