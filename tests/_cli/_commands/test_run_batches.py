"""``kaleden run`` on the in-memory platform in virtual time: large batches and faults."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest

import kaleden
from kaleden._cli._commands._run import _AttachedRun, _build_spec
from kaleden._cli._io import Output
from kaleden._cli._parser import parse
from kaleden._wire import Request
from kaleden.local import Session
from kaleden.testing import Fault, FaultPlan, MemoryTransport, run_virtual
from support import IMAGE, PLAIN_BACKENDS

Events = list[dict[str, Any]]
RunCommand = Callable[..., tuple[int, Events]]


def parse_options(*arguments: str) -> argparse.Namespace:
    return parse(["run", "fits", IMAGE, "--json", *arguments])


@pytest.fixture(params=PLAIN_BACKENDS)
def run_command(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    def run_command(
        platform: MemoryTransport, *arguments: str, left: int = 0, outage_timeout: float = 3600
    ) -> tuple[int, Events]:
        options = parse_options(*arguments)

        async def run() -> int:
            async with (
                platform,
                kaleden.AsyncSession(transport=platform, outage_timeout=outage_timeout) as session,
            ):
                status = await _AttachedRun(_build_spec(options), options, Output(json=True))(
                    session
                )
                assert left == len(platform.sessions())
                return status

        status = run_virtual(run, backend=request.param)
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run_command


def select_events(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


def hello(session: Session, _: float) -> str:
    return f"hello from {session.spec.name}\n"


def is_seventh(session: Session) -> bool:
    return session.spec.name.startswith("fits-7-")


@pytest.mark.slow
def test_hundreds_of_replicas_are_reported(run_command: RunCommand) -> None:
    platform = MemoryTransport(log=hello, duration=5, latency={"logs": 5.0})
    status, events = run_command(platform, "--replicas", "500")
    assert 0 == status
    names = {f"fits-{number}" for number in range(1, 501)}
    for kind in ("launched", "ended"):
        selected = select_events(events, kind)
        assert (500, names) == (len(selected), {event["name"] for event in selected})
    for event in select_events(events, "log"):
        assert event["text"].startswith(f"hello from {event['name']}-")
    assert 500 == len(select_events(events, "log"))


def test_failed_replica_among_many_is_reported(run_command: RunCommand) -> None:
    status, events = run_command(MemoryTransport(fails=is_seventh), "--replicas", "9")
    assert 1 == status
    [failed] = [event for event in select_events(events, "ended") if not event["ok"]]
    assert ("fits-7", "Failed") == (failed["name"], failed["status"])
    assert {"succeeded": 8, "failed": 1, "exit_status": 1}.items() <= events[-1].items()


def test_failed_launch_is_reported_and_others_continue(run_command: RunCommand) -> None:
    faults = FaultPlan([Fault("error-before", on="create", nth=2)])
    status, events = run_command(MemoryTransport(faults=faults), "--replicas", "3")
    assert (1, 2) == (status, len(select_events(events, "ended")))
    [refused] = select_events(events, "not_launched")
    # trio starts the tasks of creates in any order.
    assert refused["name"] in {"fits-1", "fits-2", "fits-3"}
    assert {"succeeded": 2, "failed": 1}.items() <= events[-1].items()


def test_lost_create_response_loses_no_session(run_command: RunCommand) -> None:
    faults = FaultPlan([Fault("reset-after", on="create", nth=2)])
    status, events = run_command(MemoryTransport(faults=faults, duration=600), "--replicas", "3")
    assert (0, 3) == (status, len(select_events(events, "ended")))


@pytest.mark.parametrize("on_unread", ["release", "destroy"])
def test_session_whose_log_cannot_be_read_is_released(
    run_command: RunCommand, on_unread: str
) -> None:
    transport = MemoryTransport(faults=FaultPlan([Fault("error-before", on="logs")]))
    left = 1 if on_unread == "release" else 0
    arguments = ("--on-unread", on_unread)
    status, events = run_command(transport, *arguments, left=left, outage_timeout=2)
    assert 1 == status
    assert ["fits"] == [event["name"] for event in select_events(events, "log_failed")]
    assert {"succeeded": 1, "failed": 0, "exit_status": 1}.items() <= events[-1].items()
    assert left == len(select_events(events, "released"))


def test_session_that_is_left_is_reported(run_command: RunCommand) -> None:
    def on_point(_: str, request: Request) -> None:
        if request.method == "DELETE":
            transport.faults = FaultPlan([Fault("stall", on="list")])

    transport = MemoryTransport(on_point=on_point)
    with pytest.raises(kaleden.ScopeError) as caught:
        run_command(transport, "--grace", "20")
    assert 1 == len(caught.value.survivors)
