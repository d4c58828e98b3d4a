"""``kaleden ps``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from _cli.invocation import COMMAND, UNREACHABLE, Caller, connection_options, start_sessions
from kaleden._cli._table import format_table
from platforms import Server, local_platform
from support import PLAIN_BACKENDS

HOSTILE = "\x1b]0;owned\x07\x9b2J\r\u202e"


@pytest.fixture(scope="module")
def session_ids(server: Server) -> list[str]:
    return start_sessions(server, "crowd", "sleep", "600", count=3)


@pytest.fixture(scope="module")
def empty() -> Iterator[Server]:
    with local_platform() as running:
        yield running


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_sessions_are_listed_in_columns(backend: str, session_ids: list[str], call: Caller) -> None:
    result = call("ps", "--backend", backend)
    assert (0, "") == (result.status, result.err)
    heads, *rows = [line.split() for line in result.out.splitlines()]
    assert ["ID", "NAME", "KIND", "STATUS", "STARTED", "IMAGE"] == heads
    assert session_ids == [row[0] for row in rows]
    assert ["crowd-1", "crowd-2", "crowd-3"] == [row[1] for row in rows]
    assert {"images.canfar.net/skaha/astroml:latest"} == {row[-1] for row in rows}
    assert "\x1b" not in result.out


def test_json_output_has_normalized_fields(session_ids: list[str], call: Caller) -> None:
    sessions = call("ps", "--json").document
    assert session_ids == [session["id"] for session in sessions]
    assert {"headless"} == {session["kind"] for session in sessions}
    assert "raw" not in sessions[0]


def test_quiet_prints_only_ids(session_ids: list[str], call: Caller) -> None:
    assert "".join(f"{key}\n" for key in session_ids) == call("ps", "-q").out


def test_filters_are_applied(session_ids: list[str], call: Caller) -> None:
    assert "no sessions\n" == call("ps", "--kind", "notebook").err
    assert "no sessions\n" == call("ps", "--status", "Failed").err
    assert "no sessions\n" == call("ps", "--view", "interactive").err
    assert [] == call("ps", "--kind", "notebook", "--json").document


def test_sessions_of_all_users_have_few_columns(session_ids: list[str], call: Caller) -> None:
    heads, *rows = call("ps", "--view", "all").out.splitlines()
    assert ["USER", "KIND", "STATUS", "STARTED"] == heads.split()
    assert len(session_ids) == len(rows)


def test_empty_list_exits_with_status_0(empty: Server, call_alone: Caller) -> None:
    result = call_alone("ps", *connection_options(empty))
    assert (0, "", "no sessions\n") == (result.status, result.out, result.err)


@pytest.mark.parametrize(
    "arguments",
    [["--kind", "headles"], ["--status", "Done"], ["--view", "interactive", "--kind", "carta"]],
)
def test_invalid_filter_is_rejected_before_any_request(
    arguments: list[str], call_alone: Caller
) -> None:
    result = call_alone("ps", *UNREACHABLE, *arguments)
    assert (2, "") == (result.status, result.out)
    assert arguments[-1] in result.err or arguments[0].strip("-") in result.err


def test_control_characters_are_escaped() -> None:
    out = format_table(["ID", "NAME"], [["a", HOSTILE], ["b", ""]])
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(out)
    assert r"\x1b]0;owned\x07" in out
    assert "b   -" in out


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_colours_follow_terminal_and_environment(
    variables: dict[str, str], coloured: bool, server: Server, session_ids: list[str]
) -> None:
    pytest.importorskip("rich")
    output = run_on_terminal(
        ["ps", *connection_options(server)], {"TERM": "xterm-256color", **variables}
    )
    assert coloured == ("\x1b[" in output)
    assert all(key in output for key in session_ids)


@pytest.mark.parametrize("columns", ["80", "48"])
def test_ids_are_never_folded_and_times_not_from_80_columns(
    columns: str, server: Server, session_ids: list[str]
) -> None:
    pytest.importorskip("rich")
    variables = {"TERM": "xterm-256color", "COLUMNS": columns}
    output = run_on_terminal(["ps", *connection_options(server)], variables)
    assert all(key in output for key in session_ids)
    times = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", output)
    assert columns != "80" or len(session_ids) == len(times)


def run_on_terminal(arguments: list[str], variables: dict[str, str]) -> str:
    """Run a command on a pseudo-terminal, and return its output."""
    ours, theirs = pty.openpty()
    env = {**os.environ, **variables}
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, env=env) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert 0 == process.returncode
    return output.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux raises EIO at the end; other systems return no bytes.
        return b""
