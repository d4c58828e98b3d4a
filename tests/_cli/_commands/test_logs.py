"""``kaleden logs``."""

from __future__ import annotations

import pytest

from _cli.invocation import (
    UNREACHABLE,
    Caller,
    connection_options,
    start_process,
    start_sessions,
    wait_until_ended,
)
from kaleden import Outcomes
from platforms import Server
from support import PLAIN_BACKENDS


@pytest.fixture(scope="module")
def log_ids(server: Server) -> list[str]:
    """Return the ids of sessions that have written a line and ended."""
    ids = start_sessions(server, "said", "echo", "hello world", count=2)
    wait_until_ended(server, ids)
    return ids


@pytest.fixture(scope="module")
def silent(server: Server) -> str:
    [key] = start_sessions(server, "silent", "sleep", "600")
    return key


@pytest.mark.parametrize("options", [[], ["--follow"]], ids=["printed", "followed"])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_single_log_is_printed_unchanged(
    backend: str, options: list[str], log_ids: list[str], call: Caller
) -> None:
    result = call("logs", "--backend", backend, *options, log_ids[0])
    assert (0, "hello world\n", "") == (result.status, result.out, result.err)


@pytest.mark.parametrize("options", [[], ["--follow"]], ids=["printed", "followed"])
def test_lines_of_several_logs_are_prefixed_with_ids(
    options: list[str], log_ids: list[str], call: Caller
) -> None:
    result = call("logs", *options, *log_ids, log_ids[0])
    assert {f"{key} | hello world" for key in log_ids} == set(result.out.splitlines())
    assert (0, 2) == (result.status, len(result.out.splitlines()))


def test_json_output_is_outcomes(log_ids: list[str], call: Caller) -> None:
    result = call("logs", *log_ids, "--json")
    outcomes: Outcomes[str] = Outcomes.from_json(result.out)
    assert dict.fromkeys(log_ids, "hello world\n") == outcomes.successes


def test_followed_json_output_is_lines(log_ids: list[str], call: Caller) -> None:
    result = call("logs", log_ids[0], "--json", "--follow")
    event = {"event": "log", "name": log_ids[0], "id": log_ids[0], "text": "hello world"}
    assert [event] == result.events


def test_empty_log_is_distinguished_from_unknown_session(silent: str, call: Caller) -> None:
    result = call("logs", silent)
    assert (0, "", f"{silent}: nothing has been written yet\n") == (
        result.status,
        result.out,
        result.err,
    )
    result = call("logs", silent, "nosuchid")
    assert (1, "") == (result.status, result.out)
    assert "nosuchid: the server lists no session with this id" in result.err
    outcomes: Outcomes[str] = Outcomes.from_json(call("logs", silent, "nosuchid", "--json").out)
    assert {silent: ""} == outcomes.successes
    assert ["nosuchid"] == list(outcomes.failures)


@pytest.mark.parametrize("options", [[], ["--follow"], ["--follow", "--json"]], ids=" ".join)
def test_name_is_rejected_with_its_id(options: list[str], silent: str, call: Caller) -> None:
    result = call("logs", *options, "silent")
    assert 1 == result.status
    assert f"it is the name of session {silent}" in result.err + result.out


def test_following_unknown_session_ends(call: Caller) -> None:
    result = call("logs", "-f", "nosuchid")
    assert (1, "") == (result.status, result.out)
    assert "the server lists no session with this id" in result.err


def test_invalid_id_is_rejected_before_any_request(call_alone: Caller) -> None:
    result = call_alone("logs", *UNREACHABLE, "fine", "no/id")
    assert (2, "") == (result.status, result.out)
    assert "'no/id' cannot be one" in result.err


def test_closed_pipe_ends_following(server: Server) -> None:
    program = "print(*range(10**5),sep=chr(10),flush=True)"
    [key] = start_sessions(server, "chatter", "python3", f"-c {program}")
    with start_process("logs", "-f", key, *connection_options(server)) as running:
        assert running.stdout is not None
        assert "0\n" == running.stdout.readline()
        running.stdout.close()
        assert 141 == running.wait(60)
        assert running.stderr is not None
        assert "" == running.stderr.read()
