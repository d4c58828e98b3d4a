"""``kaleden run``, called on an embedded platform."""

from __future__ import annotations

import pytest

from _cli.called import IMAGE, NOWHERE, Caller, Done, names
from kaleden import Outcomes
from platforms import Server
from programs import unasked
from support import PLAIN_BACKENDS


def told(done: Done, event: str) -> list[object]:
    return [each["name"] for each in done.events if each["event"] == event]


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_states_and_logs_are_shown_and_nothing_is_left(
    backend: str, server: Server, call: Caller
) -> None:
    words = ["--replicas", "2", "--backend", backend, "-e", "GREETING=hello"]
    done = call("run", "shown", IMAGE, *words, "--", "env")
    assert 0 == done.status
    lines = done.out.splitlines()
    for number in (1, 2):
        assert f"shown-{number} | GREETING=hello" in lines
        assert f"shown-{number} | REPLICA_ID={number}" in lines
        assert f"shown-{number}: launched as " in done.err
        assert f"shown-{number}: Completed\n" in done.err
    assert done.err.endswith("2 of 2 succeeded; nothing is left\n")
    assert not [name for name in names(server) if name.startswith("shown")]


def test_the_output_of_one_is_that_of_its_program(call: Caller) -> None:
    done = call("run", "alone", IMAGE, "--cores", "1", "--ram", "1", "--", "echo", "-n", "--", "x")
    assert (0, "-- x\n") == (done.status, done.out)


def test_without_logs_only_states_are_shown(call: Caller) -> None:
    done = call("run", "quiet", IMAGE, "--no-logs", "--", "echo", "hello")
    assert (0, "") == (done.status, done.out)
    assert "quiet: Completed\n" in done.err


def test_a_replica_that_fails_is_status_1(server: Server, call: Caller) -> None:
    done = call("run", "fails", IMAGE, "--replicas", "2", "--", "ls", "/nonexistent")
    assert 1 == done.status
    assert "fails-2: Failed" in done.err
    assert done.err.endswith("0 of 2 succeeded; nothing is left\n")
    assert "No such file" in done.out
    assert not [name for name in names(server) if name.startswith("fails")]


def test_json_tells_each_thing_that_happens(call: Caller) -> None:
    done = call("run", "data", IMAGE, "--replicas", "2", "--json", "--", "echo", "hello")
    assert (0, "") == (done.status, unasked(done.err))
    both = ["data-1", "data-2"]
    assert both == told(done, "launched")
    assert both == sorted(map(str, told(done, "log")))
    assert both == sorted(map(str, told(done, "ended")))
    last = {"event": "end", "succeeded": 2, "failed": 0, "exit_status": 0}
    assert last == done.events[-1]
    assert {"Completed": 2} in [event.get("counts") for event in done.events]


def test_variables_of_this_shell_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, call: Caller
) -> None:
    monkeypatch.setenv("SECRET_WORD", "xyzzy")
    done = call("run", "passed", IMAGE, "-e", "SECRET_WORD", "--", "env")
    assert "SECRET_WORD=xyzzy\n" in done.out
    assert "xyzzy" not in done.err


def test_detached_sessions_stay_and_their_ids_are_printed(server: Server, call: Caller) -> None:
    done = call("run", "stays", IMAGE, "--detach", "--replicas", "2", "--", "sleep", "600")
    assert (0, "") == (done.status, done.err)
    assert {"stays-1", "stays-2"} <= names(server)
    assert 0 == call("rm", *done.out.split()).status
    done = call("run", "stays", IMAGE, "--detach", "--json", "--", "sleep", "600")
    outcomes: Outcomes[str] = Outcomes.from_json(done.out)
    assert ["stays"] == list(outcomes.successes)
    assert 0 == call("rm", *outcomes.ids).status


def test_kept_sessions_stay_if_all_went_well(server: Server, call: Caller) -> None:
    done = call("run", "kept", IMAGE, "--release", "--", "true")
    assert (0, "") == (done.status, done.out)
    assert done.err.endswith("1 of 1 succeeded; the sessions are left\n")
    assert [name for name in names(server) if name.startswith("kept-")]
    assert 0 == call("rm", "--prefix", "kept-").status


@pytest.mark.parametrize(
    ("words", "named"),
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
def test_what_would_not_arrive_as_it_is_written_is_refused(
    words: list[str], named: str, call_alone: Caller
) -> None:
    done = call_alone("run", *NOWHERE, *words)
    assert (2, "") == (done.status, done.out)
    assert named in done.err


def test_no_value_of_a_variable_is_shown(call_alone: Caller) -> None:
    done = call_alone("run", *NOWHERE, "fits", IMAGE, "-e", "PASSWORD=hunter2=x")
    assert 2 == done.status
    assert "hunter2" not in done.err


def test_a_command_without_its_dashes_is_not_guessed_at(call_alone: Caller) -> None:
    done = call_alone("run", *NOWHERE, "fits", IMAGE, "echo", "hello")
    assert 2 == done.status
    assert "[-- CMD [ARG ...]]" in done.err


@pytest.mark.parametrize("options", [[], ["--detach"], ["--json"]], ids=" ".join)
def test_a_server_that_is_not_there_launches_nothing(
    options: list[str], call_alone: Caller
) -> None:
    done = call_alone("run", *NOWHERE, "fits", IMAGE, *options, "--", "true")
    assert 1 == done.status
    assert "no connection" in done.err + done.out
