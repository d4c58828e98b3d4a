"""``kaleden ps``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from _cli.called import COMMAND, NOWHERE, Caller, start, where
from kaleden._cli._table import table
from platforms import Server, local_platform
from support import PLAIN_BACKENDS

HOSTILE = "\x1b]0;owned\x07\x9b2J\r\u202e"


@pytest.fixture(scope="module")
def crowd(server: Server) -> list[str]:
    return start(server, "crowd", "sleep", "600", count=3)


@pytest.fixture(scope="module")
def empty() -> Iterator[Server]:
    with local_platform() as running:
        yield running


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_it_lists_sessions_in_columns(backend: str, crowd: list[str], call: Caller) -> None:
    done = call("ps", "--backend", backend)
    assert (0, "") == (done.status, done.err)
    heads, *rows = [line.split() for line in done.out.splitlines()]
    assert ["ID", "NAME", "KIND", "STATUS", "STARTED", "IMAGE"] == heads
    assert crowd == [row[0] for row in rows]
    assert ["crowd-1", "crowd-2", "crowd-3"] == [row[1] for row in rows]
    assert {"images.canfar.net/skaha/astroml:latest"} == {row[-1] for row in rows}
    assert "\x1b" not in done.out


def test_json_is_one_document_in_our_units(crowd: list[str], call: Caller) -> None:
    sessions = call("ps", "--json").document
    assert crowd == [session["id"] for session in sessions]
    assert {"headless"} == {session["kind"] for session in sessions}
    assert "raw" not in sessions[0]


def test_ids_alone_are_for_other_commands(crowd: list[str], call: Caller) -> None:
    assert "".join(f"{key}\n" for key in crowd) == call("ps", "-q").out


def test_filters_are_the_servers(crowd: list[str], call: Caller) -> None:
    assert "no sessions\n" == call("ps", "--kind", "notebook").err
    assert "no sessions\n" == call("ps", "--status", "Failed").err
    assert "no sessions\n" == call("ps", "--view", "interactive").err
    assert [] == call("ps", "--kind", "notebook", "--json").document


def test_everybodys_sessions_have_few_facts(crowd: list[str], call: Caller) -> None:
    heads, *rows = call("ps", "--view", "all").out.splitlines()
    assert ["USER", "KIND", "STATUS", "STARTED"] == heads.split()
    assert len(crowd) == len(rows)


def test_no_sessions_are_no_error(empty: Server, call_alone: Caller) -> None:
    done = call_alone("ps", *where(empty))
    assert (0, "", "no sessions\n") == (done.status, done.out, done.err)


@pytest.mark.parametrize(
    "words",
    [["--kind", "headles"], ["--status", "Done"], ["--view", "interactive", "--kind", "carta"]],
)
def test_a_slip_of_the_pen_is_told_before_anything_is_sent(
    words: list[str], call_alone: Caller
) -> None:
    done = call_alone("ps", *NOWHERE, *words)
    assert (2, "") == (done.status, done.out)
    assert words[-1] in done.err or words[0].strip("-") in done.err


def test_what_a_server_says_does_not_move_the_cursor() -> None:
    out = table(["ID", "NAME"], [["a", HOSTILE], ["b", ""]])
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(out)
    assert r"\x1b]0;owned\x07" in out
    assert "b   -" in out


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_of_who_wants_them(
    variables: dict[str, str], coloured: bool, server: Server, crowd: list[str]
) -> None:
    pytest.importorskip("rich")
    told = on_terminal(["ps", *where(server)], {"TERM": "xterm-256color", **variables})
    assert coloured == ("\x1b[" in told)
    assert all(key in told for key in crowd)


@pytest.mark.parametrize("columns", ["80", "48"])
def test_a_narrow_terminal_cuts_no_id_and_80_columns_no_time(
    columns: str, server: Server, crowd: list[str]
) -> None:
    pytest.importorskip("rich")
    variables = {"TERM": "xterm-256color", "COLUMNS": columns}
    told = on_terminal(["ps", *where(server)], variables)
    assert all(key in told for key in crowd)
    times = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told)
    assert columns != "80" or len(crowd) == len(times)


def on_terminal(words: list[str], variables: dict[str, str]) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **variables}
    with subprocess.Popen([*COMMAND, *words], stdout=theirs, env=env) as process:
        os.close(theirs)
        told = b""
        while chunk := _read(ours):
            told += chunk
    os.close(ours)
    assert 0 == process.returncode
    return told.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so where others say nothing more.
        return b""
