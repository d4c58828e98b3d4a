"""``kaleden run`` on an embedded platform."""

from __future__ import annotations

import pytest

from _cli.invocation import UNREACHABLE, Caller, Result, list_names
from kaleden import Outcomes
from platforms import Server
from programs import remove_cleanup_messages
from support import IMAGE, PLAIN_BACKENDS


def find_event_names(result: Result, event: str) -> list[object]:
    return [each["name"] for each in result.events if each["event"] == event]


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_states_and_logs_are_printed_and_sessions_ended(
    backend: str, server: Server, call: Caller
) -> None:
    arguments = ["--replicas", "2", "--backend", backend, "-e", "GREETING=hello"]
    result = call("run", "shown", IMAGE, *arguments, "--", "env")
    assert 0 == result.status
    lines = result.out.splitlines()
    for number in (1, 2):
        assert f"shown-{number} | GREETING=hello" in lines
        assert f"shown-{number} | REPLICA_ID={number}" in lines
        assert f"shown-{number}: launched as " in result.err
        assert f"shown-{number}: Completed\n" in result.err
    assert result.err.endswith("2 of 2 succeeded; all sessions have ended\n")
    assert not [name for name in list_names(server) if name.startswith("shown")]


def test_single_replica_has_no_prefix(call: Caller) -> None:
    result = call(
        "run", "alone", IMAGE, "--cores", "1", "--ram", "1", "--", "echo", "-n", "--", "x"
    )
    assert (0, "-- x\n") == (result.status, result.out)


def test_no_logs_prints_only_states(call: Caller) -> None:
    result = call("run", "quiet", IMAGE, "--no-logs", "--", "echo", "hello")
    assert (0, "") == (result.status, result.out)
    assert "quiet: Completed\n" in result.err


def test_failed_replica_exits_with_status_1(server: Server, call: Caller) -> None:
    result = call("run", "fails", IMAGE, "--replicas", "2", "--", "ls", "/nonexistent")
    assert 1 == result.status
    assert "fails-2: Failed" in result.err
    assert result.err.endswith("0 of 2 succeeded; all sessions have ended\n")
    assert "No such file" in result.out
    assert not [name for name in list_names(server) if name.startswith("fails")]


def test_json_output_has_all_events(call: Caller) -> None:
    result = call("run", "data", IMAGE, "--replicas", "2", "--json", "--", "echo", "hello")
    assert (0, "") == (result.status, remove_cleanup_messages(result.err))
    both = ["data-1", "data-2"]
    assert both == find_event_names(result, "launched")
    assert both == sorted(map(str, find_event_names(result, "log")))
    assert both == sorted(map(str, find_event_names(result, "ended")))
    last = {"event": "end", "succeeded": 2, "failed": 0, "exit_status": 0}
    assert last == result.events[-1]
    assert {"Completed": 2} in [event.get("counts") for event in result.events]


def test_variable_of_shell_is_passed_on(monkeypatch: pytest.MonkeyPatch, call: Caller) -> None:
    monkeypatch.setenv("SECRET_WORD", "xyzzy")
    result = call("run", "passed", IMAGE, "-e", "SECRET_WORD", "--", "env")
    assert "SECRET_WORD=xyzzy\n" in result.out
    assert "xyzzy" not in result.err


def test_detached_sessions_stay_and_ids_are_printed(server: Server, call: Caller) -> None:
    result = call("run", "stays", IMAGE, "--detach", "--replicas", "2", "--", "sleep", "600")
    assert (0, "") == (result.status, result.err)
    assert {"stays-1", "stays-2"} <= list_names(server)
    assert 0 == call("rm", *result.out.split()).status
    result = call("run", "stays", IMAGE, "--detach", "--json", "--", "sleep", "600")
    outcomes: Outcomes[str] = Outcomes.from_json(result.out)
    assert ["stays"] == list(outcomes.successes)
    assert 0 == call("rm", *outcomes.ids).status


def test_released_sessions_stay(server: Server, call: Caller) -> None:
    result = call("run", "kept", IMAGE, "--release", "--", "true")
    assert (0, "") == (result.status, result.out)
    assert result.err.endswith("1 of 1 succeeded; the sessions were released\n")
    assert [name for name in list_names(server) if name.startswith("kept-")]
    assert 0 == call("rm", "--prefix", "kept-").status


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["Größe", IMAGE], "name"),
        (["a" * 60, IMAGE], "name"),
        (["fits", "nothing"], "image"),
        (["fits", IMAGE, "--kind", "headles"], "kind"),
        (["fits", IMAGE, "--cores", "0.5"], "cores"),
        (["fits", IMAGE, "-e", "A=1", "-e", "A=2"], "twice"),
        (["fits", IMAGE, "-e", "A=b=c"], "env['A']"),
        (["fits", IMAGE, "-e", "A="], "env['A']"),
        (["fits", IMAGE, "-e", "2A=x"], "env name"),
        (["fits", IMAGE, "--", ""], "cmd"),
        (["fits", IMAGE, "--", "echo hello"], "cmd"),
        (["fits", IMAGE, "--", "echo", "two words"], "args"),
        (["fits", IMAGE, "--", "echo", ""], "args"),
        (["fits", IMAGE, "--", "echo", "$HOME"], "args"),
        (["fits", IMAGE, "--", "echo", "naïve"], "args"),
        (["fits", IMAGE, "--kind", "notebook", "--", "echo"], "cmd"),
        (["fits", IMAGE, "--replicas", "10001"], "replicas"),
        (["fits", IMAGE, "--detach", "--ledger", "/nonexistent/x"], "--ledger"),
        (["fits", IMAGE, "--ledger", "/nonexistent/x"], "/nonexistent"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_invalid_specification_is_rejected(
    arguments: list[str], expected: str, call_alone: Caller
) -> None:
    result = call_alone("run", *UNREACHABLE, *arguments)
    assert (2, "") == (result.status, result.out)
    assert expected in result.err


def test_value_of_variable_is_not_printed(call_alone: Caller) -> None:
    result = call_alone("run", *UNREACHABLE, "fits", IMAGE, "-e", "PASSWORD=hunter2=x")
    assert 2 == result.status
    assert "hunter2" not in result.err


def test_command_without_dashes_is_rejected(call_alone: Caller) -> None:
    result = call_alone("run", *UNREACHABLE, "fits", IMAGE, "echo", "hello")
    assert 2 == result.status
    assert "[-- CMD [ARG ...]]" in result.err


@pytest.mark.parametrize("options", [[], ["--detach"], ["--json"]], ids=" ".join)
def test_unreachable_server_exits_with_status_1(options: list[str], call_alone: Caller) -> None:
    result = call_alone("run", *UNREACHABLE, "fits", IMAGE, *options, "--", "true")
    assert 1 == result.status
    assert "no connection" in result.err + result.out
