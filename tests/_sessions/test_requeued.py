"""Sessions that are Pending again after they have run count as started, whoever has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio
import pytest

import kaleden
from kaleden import SessionStatus
from kaleden._wire import Request, Response
from support import IMAGE, data, launch_name, session_id, session_object, session_on, text
from virtual_time import in_virtual_time

TIME: Final = "2026-01-01T00:00:00Z"

TIMELINE: Final = [
    (0, SessionStatus.PENDING),
    (5, SessionStatus.RUNNING),
    (20, SessionStatus.PENDING),
    (300, SessionStatus.RUNNING),
    (330, SessionStatus.COMPLETED),
]


class RequeueingServer:
    """A server that starts each session for a while, requeues it, and runs it to its end.

    Args:
        timeline: the statuses, each with the seconds after the create at which it begins.
        start_time: the start time of a requeued session; empty if it has none.
        events: the response to a request for events.
    """

    def __init__(
        self,
        timeline: Sequence[tuple[float, SessionStatus]],
        start_time: str = "",
        events: Response | None = None,
    ) -> None:
        self.timeline = timeline
        self.start_time = start_time
        self.events = events or text("not found", 404)
        self.created: dict[str, tuple[str, float]] = {}

    async def __call__(self, request: Request) -> Response:
        await anyio.sleep(0.05)
        if request.method == "POST":
            key = f"id{len(self.created)}"
            self.created[key] = launch_name(request), anyio.current_time()
            return text(key)
        key = session_id(request)
        if request.method == "DELETE":
            self.created.pop(key, None)
            return text("")
        if "view=events" in request.target:
            return self.events
        if "view=logs" in request.target:
            return text("")
        if key in self.created:
            return data(self.describe(key))
        return data([self.describe(each) for each in self.created])

    def describe(self, key: str) -> dict[str, object]:
        name, created = self.created[key]
        age = anyio.current_time() - created
        status = [status for start, status in self.timeline if age >= start][-1]
        start_time = self.start_time if status == SessionStatus.PENDING else TIME
        return session_object(key, name=name, status=status, startTime=start_time)


@pytest.mark.parametrize("method", ["fetch", "info"])
@in_virtual_time
async def test_session_that_another_call_has_shown_as_running_is_not_late(method: str) -> None:
    session, _ = session_on(RequeueingServer(TIMELINE))
    async with session:
        created = await session.create("fits", IMAGE)
        await anyio.sleep(10)
        await (session.fetch() if method == "fetch" else session.info(created))
        await anyio.sleep(60)
        [outcome] = await session.wait(created, pending_timeout=60)
        assert outcome.ok


@in_virtual_time
async def test_session_that_no_call_has_shown_as_running_is_late() -> None:
    session, _ = session_on(RequeueingServer(TIMELINE))
    async with session:
        created = await session.create("fits", IMAGE)
        await anyio.sleep(60)
        [outcome] = await session.wait(created, pending_timeout=60)
        assert isinstance(outcome, kaleden.Failure)
        assert kaleden.FailureKind.PENDING_TIMEOUT is outcome.kind


@pytest.mark.parametrize("status", [404, 500, 503])
@in_virtual_time
async def test_sessions_that_ran_between_two_lists_count_as_started(status: int) -> None:
    unseen = [entry for entry in TIMELINE if entry[0] not in {5, 20}]
    session, _ = session_on(RequeueingServer(unseen, TIME, text("no", status)))
    async with session:
        outcomes = await session.run("fits", IMAGE, replicas=3, min_started=3, start_timeout=60)
        assert outcomes.ok
