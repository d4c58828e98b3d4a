"""``kaleden run`` on a platform in memory, in virtual time: large, and with things gone wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest

import kaleden
from _cli.called import IMAGE
from kaleden._cli._commands._run import _read_spec, _Run
from kaleden._cli._io import Output
from kaleden._cli._parser import parse
from kaleden.local import Session
from kaleden.testing import Fault, FaultPlan, MemoryTransport, run_virtual
from support import PLAIN_BACKENDS

Events = list[dict[str, Any]]
Try = Callable[..., tuple[int, Events]]


def options_of(*words: str) -> argparse.Namespace:
    return parse(["run", "fits", IMAGE, "--json", *words])


@pytest.fixture(params=PLAIN_BACKENDS)
def attempt(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Try:
    def attempt(world: MemoryTransport, *words: str) -> tuple[int, Events]:
        options = options_of(*words)

        async def run() -> int:
            async with world, kaleden.AsyncSession(transport=world) as session:
                status = await _Run(_read_spec(options), options, Output(json=True))(session)
                assert [] == world.sessions()
                return status

        status = run_virtual(run, backend=request.param)
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return attempt


def of(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


def hello(session: Session, _: float) -> str:
    return f"hello from {session.spec.name}\n"


def is_seventh(session: Session) -> bool:
    return session.spec.name.startswith("fits-7-")


@pytest.mark.slow
def test_hundreds_of_replicas(attempt: Try) -> None:
    world = MemoryTransport(log=hello, duration=5, latency={"logs": 5.0})
    status, events = attempt(world, "--replicas", "500")
    assert 0 == status
    names = {f"fits-{number}" for number in range(1, 501)}
    for kind in ("launched", "ended"):
        told = of(events, kind)
        assert (500, names) == (len(told), {event["name"] for event in told})
    for event in of(events, "log"):
        assert event["text"].startswith(f"hello from {event['name']}-")
    assert 500 == len(of(events, "log"))


def test_one_that_fails_among_many(attempt: Try) -> None:
    status, events = attempt(MemoryTransport(fails=is_seventh), "--replicas", "9")
    assert 1 == status
    [failed] = [event for event in of(events, "ended") if not event["ok"]]
    assert ("fits-7", "Failed") == (failed["name"], failed["status"])
    assert {"succeeded": 8, "failed": 1, "exit_status": 1}.items() <= events[-1].items()


def test_a_launch_that_is_refused_is_told_and_the_others_go_on(attempt: Try) -> None:
    faults = FaultPlan([Fault("error-before", on="create", nth=2)])
    status, events = attempt(MemoryTransport(faults=faults), "--replicas", "3")
    assert (1, 2) == (status, len(of(events, "ended")))
    [refused] = of(events, "not_launched")
    # trio starts the tasks of creates in any order.
    assert refused["name"] in {"fits-1", "fits-2", "fits-3"}
    assert {"succeeded": 2, "failed": 1}.items() <= events[-1].items()


def test_a_lost_reply_loses_no_session(attempt: Try) -> None:
    faults = FaultPlan([Fault("reset-after", on="create", nth=2)])
    status, events = attempt(MemoryTransport(faults=faults, duration=600), "--replicas", "3")
    assert (0, 3) == (status, len(of(events, "ended")))


def test_logs_that_cannot_be_read_are_told(attempt: Try) -> None:
    faults = FaultPlan([Fault("error-before", on="logs")])
    status, events = attempt(MemoryTransport(faults=faults))
    assert 1 == status
    assert ["fits"] == [event["name"] for event in of(events, "log_failed")]
    assert {"succeeded": 1, "failed": 0, "exit_status": 1}.items() <= events[-1].items()


def test_nothing_that_is_left_is_kept_quiet(attempt: Try) -> None:
    faults = FaultPlan([Fault("lie", on="destroy")])
    with pytest.raises(kaleden.ScopeError) as caught:
        attempt(MemoryTransport(faults=faults), "--grace", "20")
    assert 1 == len(caught.value.survivors)
