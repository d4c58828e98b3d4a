"""``kaleden logs``."""

from __future__ import annotations

import pytest

from _cli.called import NOWHERE, Caller, ended, process, start, where
from kaleden import Outcomes
from platforms import Server
from support import PLAIN_BACKENDS


@pytest.fixture(scope="module")
def said(server: Server) -> list[str]:
    """Sessions that have said something and ended."""
    ids = start(server, "said", "echo", "hello world", count=2)
    ended(server, ids)
    return ids


@pytest.fixture(scope="module")
def silent(server: Server) -> str:
    [key] = start(server, "silent", "sleep", "600")
    return key


@pytest.mark.parametrize("options", [[], ["--follow"]], ids=["printed", "followed"])
@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_one_log_is_printed_as_it_is(
    backend: str, options: list[str], said: list[str], call: Caller
) -> None:
    done = call("logs", "--backend", backend, *options, said[0])
    assert (0, "hello world\n", "") == (done.status, done.out, done.err)


@pytest.mark.parametrize("options", [[], ["--follow"]], ids=["printed", "followed"])
def test_several_have_their_ids_before_each_line(
    options: list[str], said: list[str], call: Caller
) -> None:
    done = call("logs", *options, *said, said[0])
    assert {f"{key} | hello world" for key in said} == set(done.out.splitlines())
    assert (0, 2) == (done.status, len(done.out.splitlines()))


def test_json_is_the_outcomes(said: list[str], call: Caller) -> None:
    done = call("logs", *said, "--json")
    outcomes: Outcomes[str] = Outcomes.from_json(done.out)
    assert dict.fromkeys(said, "hello world\n") == outcomes.successes


def test_followed_json_is_lines(said: list[str], call: Caller) -> None:
    done = call("logs", said[0], "--json", "--follow")
    event = {"event": "log", "name": said[0], "id": said[0], "text": "hello world"}
    assert [event] == done.events


def test_an_empty_log_is_told_from_no_session(silent: str, call: Caller) -> None:
    done = call("logs", silent)
    assert (0, "", f"{silent}: nothing was written yet\n") == (done.status, done.out, done.err)
    done = call("logs", silent, "nosuchid")
    assert (1, "") == (done.status, done.out)
    assert "nosuchid: no session of yours has this id" in done.err
    outcomes: Outcomes[str] = Outcomes.from_json(call("logs", silent, "nosuchid", "--json").out)
    assert {silent: ""} == outcomes.successes
    assert ["nosuchid"] == list(outcomes.failures)


@pytest.mark.parametrize("options", [[], ["--follow"], ["--follow", "--json"]], ids=" ".join)
def test_a_name_is_no_id(options: list[str], silent: str, call: Caller) -> None:
    done = call("logs", *options, "silent")
    assert 1 == done.status
    assert f"that is the name of {silent}: logs takes ids" in done.err + done.out


def test_following_what_is_not_there_ends(call: Caller) -> None:
    done = call("logs", "-f", "nosuchid")
    assert (1, "") == (done.status, done.out)
    assert "it was never listed" in done.err


def test_bad_ids_are_refused_before_anything_is_sent(call_alone: Caller) -> None:
    done = call_alone("logs", *NOWHERE, "fine", "no/id")
    assert (2, "") == (done.status, done.out)
    assert "'no/id' cannot be one" in done.err


def test_following_ends_with_who_reads(server: Server) -> None:
    talk = "print(*range(10**5),sep=chr(10),flush=True)"
    [key] = start(server, "chatter", "python3", f"-c {talk}")
    with process("logs", "-f", key, *where(server)) as running:
        assert running.stdout is not None
        assert "0\n" == running.stdout.readline()
        running.stdout.close()
        assert 141 == running.wait(60)
        assert running.stderr is not None
        assert "" == running.stderr.read()
