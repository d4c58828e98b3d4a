"""``kaleden rm``."""

from __future__ import annotations

import argparse

import anyio
import pytest

import kaleden
from _cli.invocation import UNREACHABLE, Caller, list_names, start_sessions, wait_until_ended
from kaleden import Outcomes
from kaleden._cli._commands._rm import _remove_by_id
from kaleden._cli._io import Output
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultPlan, FaultProxy
from platforms import Server
from support import IMAGE, PLAIN_BACKENDS


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_sessions_are_ended_and_listed(backend: str, server: Server, call: Caller) -> None:
    [first, second] = start_sessions(server, "gone", "sleep", "600", count=2)
    result = call("rm", "--backend", backend, first, second, first)
    assert (0, "") == (result.status, result.err)
    assert f"gone: {first} (gone-1)\ngone: {second} (gone-2)\n" == result.out
    assert not {"gone-1", "gone-2"} & list_names(server)


def test_unknown_id_is_reported(call: Caller) -> None:
    missing = "nosuchid: the server lists no session with this id\n"
    result = call("rm", "nosuchid")
    assert (1, "", missing) == (result.status, result.out, result.err)
    result = call("rm", "--ignore-missing", "nosuchid")
    assert (0, "", missing) == (result.status, result.out, result.err)


def test_name_is_rejected_with_its_id(server: Server, call: Caller) -> None:
    [key] = start_sessions(server, "named", "sleep", "600")
    result = call("rm", "--ignore-missing", "Named", "nosuchid")
    assert (1, "") == (result.status, result.out)
    assert f"this is the name of session {key}: give the id" in result.err
    assert "named" in list_names(server)
    assert 0 == call("rm", key).status


def test_prefix_ends_all_matching_sessions(server: Server, call: Caller) -> None:
    sleeping = start_sessions(server, "pre-long", "sleep", "600", count=2)
    [finished] = start_sessions(server, "pre-short", "true")
    start_sessions(server, "other", "sleep", "600")
    wait_until_ended(server, [finished])
    result = call("rm", "--prefix", "PRE-", "--dry-run")
    assert {f"would end: {finished} (pre-short)"} < set(result.out.splitlines())
    assert 3 == len(result.out.splitlines())
    result = call("rm", "--prefix", "pre-", "--status", "completed")
    assert f"gone: {finished} (pre-short)\n" == result.out
    result = call("rm", "--prefix", "pre-", "--json", "--dry-run")
    assert {"would_end": sleeping} == result.document
    assert 0 == call("rm", "--prefix", "pre-", "--kind", "notebook").status
    result = call("rm", "--prefix", "pre-", "--json")
    assert sleeping == Outcomes.from_json(result.out).ids
    assert "other" in list_names(server)
    result = call("rm", "--prefix", "pre-")
    assert (0, "", "no session's name begins with pre-\n") == (
        result.status,
        result.out,
        result.err,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["id", "--prefix", "p"],
        ["id", "--kind", "headless"],
        ["id", "--dry-run"],
        ["no/id"],
        ["größe"],
        ["--prefix", ""],
        ["--prefix", ".*"],
        ["--prefix", "p", "--kind", "headles"],
        ["--prefix", "p", "--status", "Done"],
    ],
    ids=" ".join,
)
def test_invalid_input_is_rejected_before_any_request(
    arguments: list[str], call_alone: Caller
) -> None:
    result = call_alone("rm", *UNREACHABLE, *arguments)
    assert (2, "") == (result.status, result.out)
    assert result.err.startswith("kaleden: ")


def test_unconfirmed_session_is_listed_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The deletes succeed, and the lists that should confirm them fail."""

    async def remove() -> int:
        plan = FaultPlan([Fault("error-before", on="list", nth=range(4, 99))])
        async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
            async with kaleden.AsyncSession(proxy.url, platform.token) as session:
                created = await session.create("left", IMAGE, cmd="sleep", args="9")
                options = argparse.Namespace(ids=created.ids, ignore_missing=False)
                return await _remove_by_id(options, Output(json=False), session)

    assert 1 == anyio.run(remove)
    assert "may be left: " in capsys.readouterr().err
