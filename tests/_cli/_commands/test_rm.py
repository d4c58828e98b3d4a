"""``kaleden rm``."""

from __future__ import annotations

import argparse

import anyio
import pytest

import kaleden
from _cli.called import IMAGE, NOWHERE, Caller, ended, names, start
from kaleden import Outcomes
from kaleden._cli._commands._rm import _remove_named
from kaleden._cli._io import Output
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultPlan, FaultProxy
from platforms import Server
from support import PLAIN_BACKENDS


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_sessions_are_ended_and_named(backend: str, server: Server, call: Caller) -> None:
    [first, second] = start(server, "gone", "sleep", "600", count=2)
    done = call("rm", "--backend", backend, first, second, first)
    assert (0, "") == (done.status, done.err)
    assert f"gone: {first} (gone-1)\ngone: {second} (gone-2)\n" == done.out
    assert not {"gone-1", "gone-2"} & names(server)


def test_an_id_that_was_not_there_is_said_to_be_none(call: Caller) -> None:
    done = call("rm", "nosuchid")
    assert (0, "gone: nosuchid (it was not there)\n", "") == (done.status, done.out, done.err)


def test_a_name_is_not_taken_for_an_id(server: Server, call: Caller) -> None:
    [key] = start(server, "named", "sleep", "600")
    done = call("rm", "Named", "nosuchid")
    assert (1, "gone: nosuchid (it was not there)\n") == (done.status, done.out)
    assert f"that is the name of {key}: rm takes ids" in done.err
    assert "named" in names(server)
    assert 0 == call("rm", key).status


def test_a_prefix_ends_all_that_begin_so(server: Server, call: Caller) -> None:
    sleeping = start(server, "pre-long", "sleep", "600", count=2)
    [finished] = start(server, "pre-short", "true")
    start(server, "other", "sleep", "600")
    ended(server, [finished])
    done = call("rm", "--prefix", "PRE-", "--dry-run")
    assert {f"would end: {finished} (pre-short)"} < set(done.out.splitlines())
    assert 3 == len(done.out.splitlines())
    done = call("rm", "--prefix", "pre-", "--status", "completed")
    assert f"gone: {finished} (pre-short)\n" == done.out
    done = call("rm", "--prefix", "pre-", "--json", "--dry-run")
    assert {"would_end": sleeping} == done.document
    assert 0 == call("rm", "--prefix", "pre-", "--kind", "notebook").status
    done = call("rm", "--prefix", "pre-", "--json")
    assert sleeping == Outcomes.from_json(done.out).ids
    assert "other" in names(server)
    done = call("rm", "--prefix", "pre-")
    assert (0, "", "no session's name begins with pre-\n") == (done.status, done.out, done.err)


@pytest.mark.parametrize(
    "words",
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
def test_bad_input_is_refused_before_anything_is_sent(words: list[str], call_alone: Caller) -> None:
    done = call_alone("rm", *NOWHERE, *words)
    assert (2, "") == (done.status, done.out)
    assert done.err.startswith("kaleden: ")


def test_what_may_be_left_is_named_and_the_status_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The deletes are answered, and the list that should prove them is not."""

    async def try_it() -> int:
        plan = FaultPlan([Fault("error-before", on="list", nth=range(3, 9))])
        async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
            async with kaleden.AsyncSession(proxy.url, platform.token) as session:
                created = await session.create("left", IMAGE, cmd="sleep", args="9")
                options = argparse.Namespace(ids=created.ids)
                return await _remove_named(options, Output(json=False), session)

    assert 1 == anyio.run(try_it)
    assert "may be left: " in capsys.readouterr().err
