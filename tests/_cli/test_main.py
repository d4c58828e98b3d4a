"""What all commands share: options, exit statuses, and what becomes of errors."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kaleden
from _cli.called import COMMAND, IMAGE, NOWHERE, Caller, process
from kaleden import FailureKind
from kaleden._cli import _main, build_parser
from kaleden._cli._io import CannotWrite, ReaderGone
from kaleden._results._batch import Failure
from platforms import Server
from support import HAS_TRIO

LOST = Failure("fetch", FailureKind.CONNECTION_LOST, "it broke")


@pytest.mark.parametrize(
    ("error", "status", "words"),
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
def test_each_error_has_its_status(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    call_alone: Caller,
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(_main, "_command", lambda _: fail)
    done = call_alone("ps")
    assert (status, "") == (done.status, done.out)
    assert words in done.err
    assert bool(words) == bool(done.err)


def test_an_error_that_nobody_expects_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, call_alone: Caller
) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(_main, "_command", lambda _: fail)
    with pytest.raises(ZeroDivisionError):
        call_alone("ps")


@pytest.mark.parametrize(
    "words",
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
def test_a_line_that_cannot_be_understood_is_status_2(words: list[str], call_alone: Caller) -> None:
    done = call_alone(*words) if words else call_alone("--")
    assert 2 == done.status
    assert "usage: kaleden" in done.err
    assert "" == done.out


def test_without_a_server_it_says_what_to_do(call_alone: Caller) -> None:
    done = call_alone("ps")
    assert (2, "") == (done.status, done.out)
    assert "canfar login" in done.err


def test_a_server_that_is_not_there_is_status_1(call_alone: Caller) -> None:
    done = call_alone("ps", *NOWHERE)
    assert (1, "") == (done.status, done.out)
    assert "no connection to 127.0.0.1 port 1" in done.err
    assert done.err.endswith(": see `kaleden doctor`\n")
    assert "secret" not in done.err


def test_a_login_that_is_refused_names_the_doctor(server: Server, call_alone: Caller) -> None:
    done = call_alone("ps", "--url", server.url, "--token", "wrong")
    assert 1 == done.status
    assert "see `kaleden doctor`" in done.err


def test_a_token_comes_from_a_file_too(server: Server, tmp_path: Path, call_alone: Caller) -> None:
    path = tmp_path / "token"
    path.write_text(f"{server.token}\n")
    done = call_alone("ps", "--url", server.url, "--token-file", str(path), "--json")
    assert (0, "") == (done.status, done.err)


def test_a_token_comes_from_standard_input_too(server: Server) -> None:
    words = ["ps", "--url", server.url, "--token-file", "-", "--json"]
    done = subprocess.run(
        [*COMMAND, *words], input=f"{server.token}\n", capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfe", "is no text")]
)
def test_a_file_without_a_token_is_refused(
    content: bytes, words: str, tmp_path: Path, call_alone: Caller
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    done = call_alone("ps", *NOWHERE[:2], "--token-file", str(path))
    assert 2 == done.status
    assert words in done.err


def test_a_closed_standard_input_has_no_token(
    monkeypatch: pytest.MonkeyPatch, call_alone: Caller
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    done = call_alone("ps", *NOWHERE[:2], "--token-file", "-")
    assert 2 == done.status
    assert "'-' is empty" in done.err


@pytest.mark.skipif(HAS_TRIO, reason="trio is installed")
def test_without_trio_it_says_what_to_install(call: Caller) -> None:
    done = call("ps", "--backend", "trio")
    assert 2 == done.status
    assert "kaleden[trio]" in done.err


def test_who_stops_reading_ends_it_quietly(server: Server) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    words = ["ps", "--url", server.url, "--token", server.token, "--json"]
    with process(*words, stdout=theirs) as running:
        os.close(theirs)
        assert 141 == running.wait(60)
        assert running.stderr is not None
        assert "" == running.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
def test_a_full_disk_is_told(server: Server) -> None:
    with open("/dev/full", "w") as full:
        words = ["ps", "--url", server.url, "--token", server.token, "--json"]
        with process(*words, stdout=full) as running:
            assert 1 == running.wait(60)
            assert running.stderr is not None
            assert "the results cannot be written" in running.stderr.read()


def test_a_closed_standard_output_is_no_trouble(server: Server) -> None:
    words = ["ps", "--url", server.url, "--token", server.token, "--json"]
    line = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND, *words], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_it_starts_without_what_only_some_commands_need() -> None:
    code = (
        "import sys; from kaleden._cli import build_parser; build_parser();"
        "print([name for name in ('rich', 'shtab', 'kaleden.local', 'httpx') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_every_command_has_its_module_and_says_what_it_is_for() -> None:
    commands = _commands(build_parser())
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
        assert callable(_main._command(name))
        assert parser.description


@pytest.mark.parametrize("word", ["demo", "logs", "ps", "reap", "rm", "run", "serve", "doctor"])
def test_every_command_speaks_json(word: str) -> None:
    assert "--json" in _commands(build_parser())[word].format_help()


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [commands] = [action for action in parser._actions if isinstance(action.choices, dict)]
    assert isinstance(commands.choices, dict)
    return commands.choices
