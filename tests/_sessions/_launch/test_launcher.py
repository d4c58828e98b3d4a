"""The launch protocol, step by step, in virtual time: searches, their intervals and their ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup

from kaleden import Failure, FailureKind, Outcome, RetryPolicy, SessionNotOpen, Success
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._http import TransportError
from kaleden._sessions._launch._launch_request import (
    LaunchRequest,
    build_requests_with_tokens,
)
from kaleden._sessions._launch._launcher import InFlightCreate, Launcher
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Request, Response, SessionSpec
from support import (
    FULL_IMAGE,
    FakeTransport,
    data,
    launch_name,
    session_object,
    session_on,
    stalled,
    text,
)
from virtual_time import in_virtual_time

BROKEN = text("something broke", 500)
REFUSED = TransportError(FailureKind.CONNECT_FAILED, "connection refused", sent=False)


class LossyServer:
    """A server that takes a second to make a session, and then responds with an error.

    Args:
        shows: seconds after the create at which the session is listed.
        lists: returns a response in place of the true list, by seconds since the create.
        response: the response to a create.
    """

    def __init__(
        self,
        shows: float = 0.0,
        lists: Callable[[float], Response | None] = lambda _: None,
        response: Response = BROKEN,
    ) -> None:
        self.shows = shows
        self.lists = lists
        self.response = response
        self.has_made = False
        self.listed_at: list[float] = []

    async def __call__(self, request: Request) -> Response:
        if request.method == "POST":
            await anyio.sleep(1)
            self.has_made = True
            return self.response
        now = anyio.current_time() - 1
        self.listed_at.append(now)
        shows = self.has_made and now >= self.shows
        return self.lists(now) or data([session_object("new", name="fits")] if shows else [])


async def launch_on(server: LossyServer, **options: float) -> Success[str] | Failure:
    session, transport = session_on(server, **options)
    async with session:
        [outcome] = await session.create("fits", FULL_IMAGE)
    assert 1 == sum(request.method == "POST" for request in transport.requests)
    return outcome


@pytest.mark.parametrize(("shows", "found"), [(0, 0), (0.2, 0.25), (3, 3.75), (9, 10)])
@in_virtual_time
async def test_session_that_is_listed_late_is_found(shows: float, found: float) -> None:
    outcome = await launch_on(LossyServer(shows), settle=10)
    assert Success("fits", "new", 1, 1 + found) == outcome


@in_virtual_time
async def test_search_backs_off_until_the_settle_time_is_over() -> None:
    server = LossyServer(shows=100)
    outcome = await launch_on(server, settle=30)
    # The first list is made before the launch.
    assert [-1, 0, 0.25, 0.75, 1.75, 3.75, 7.75, 11.75, 15.75, 19.75, 23.75, 27.75, 30] == (
        server.listed_at
    )
    assert isinstance(outcome, Failure)
    assert (FailureKind.UNKNOWN_EFFECT, 500, 31) == (outcome.kind, outcome.status, outcome.elapsed)
    assert "a session named fits may have been created: something broke" == outcome.message


@pytest.mark.parametrize(
    "last",
    [BROKEN, data([{"type": "headless"}]), data([session_object(k, name="fits") for k in "ab"])],
    ids=["none", "unreadable", "two"],
)
@in_virtual_time
async def test_lists_never_prove_that_a_failed_create_had_no_effect(last: Response) -> None:
    server = LossyServer(shows=100, lists=lambda now: last if now == 10 else None)
    outcome = await launch_on(server, settle=10)
    assert isinstance(outcome, Failure)
    assert (FailureKind.UNKNOWN_EFFECT, True) == (outcome.kind, outcome.sent)
    assert outcome.message.startswith("a session named fits may have been created: ")
    assert "something broke" in outcome.message


@in_virtual_time
async def test_search_continues_after_failed_lists() -> None:
    server = LossyServer(shows=1, lists=lambda now: BROKEN if 0 < now < 5 else None)
    assert Success("fits", "new", 1, 8.75) == await launch_on(server, settle=10)


@in_virtual_time
async def test_search_is_skipped_without_a_list_from_before_the_launch() -> None:
    server = LossyServer(lists=lambda now: BROKEN if now < 0 else None)
    outcome = await launch_on(server)
    assert isinstance(outcome, Failure)
    assert FailureKind.UNKNOWN_EFFECT is outcome.kind
    assert [-1] == server.listed_at


@in_virtual_time
async def test_older_session_of_the_same_name_is_not_the_result() -> None:
    older = data([session_object("old", name="fits")])
    server = LossyServer(shows=100, lists=lambda _: older)
    outcome = await launch_on(server, settle=1)
    assert isinstance(outcome, Failure)
    assert FailureKind.UNKNOWN_EFFECT is outcome.kind


@pytest.mark.parametrize("status", [300, 404, 499])
@in_virtual_time
async def test_refused_create_is_not_searched_for(status: int) -> None:
    server = LossyServer(response=text("no", status))
    outcome = await launch_on(server)
    assert isinstance(outcome, Failure)
    assert status == outcome.status
    assert [-1] == server.listed_at


@in_virtual_time
async def test_unsent_create_is_retried_and_reported_once() -> None:
    async def respond(request: Request) -> Response:
        if request.method == "GET":
            return data([])
        if len(transport.requests) < 4:
            raise REFUSED
        return text("abc")

    policy = RetryPolicy(attempts=4, base=1, seed=2)
    session, transport = session_on(respond, retry=policy)
    async with session:
        [outcome] = await session.create("fits", FULL_IMAGE)
        retries = session.statistics().retries
    assert isinstance(outcome, Success)
    assert ("abc", 3) == (outcome.value, outcome.attempts)
    assert 0 < outcome.elapsed < 3
    # The other first attempt is the list before the launch.
    assert (2, 2) == (retries.first, retries.repeated)


@in_virtual_time
async def test_retry_launches_only_failed_replicas() -> None:
    names: Counter[str] = Counter()

    async def respond(request: Request) -> Response:
        if request.method == "GET":
            return data([])
        name = launch_name(request)
        names[name] += 1
        return text("no", 400) if name == "fits-2" and names[name] == 1 else text(f"id-{name}")

    session, _ = session_on(respond)
    async with session:
        created = await session.create("fits", FULL_IMAGE, replicas=3)
        assert ["fits-2"] == list(created.failures)
        again = await created.retry_failed()
    assert (["id-fits-1", "id-fits-2", "id-fits-3"], "create") == (again.ids, again.operation)
    assert {"fits-1": 1, "fits-2": 2, "fits-3": 1} == names
    with pytest.raises(SessionNotOpen):
        await created.retry_failed()


@in_virtual_time
async def test_waiting_create_is_sent_if_its_deadline_is_extended() -> None:
    async def respond(request: Request) -> Response:
        if request.method == "GET":
            return data([])
        await anyio.sleep(2)
        return text(f"id-{launch_name(request)}")

    async def extend_deadline() -> None:
        await anyio.sleep(0.5)
        scope.deadline += 100

    session, _ = session_on(respond, create_concurrency=1)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.create, "first", FULL_IMAGE)
        await anyio.sleep(0.5)
        with anyio.move_on_after(1) as scope:
            group.start_soon(extend_deadline)
            [outcome] = await session.create("second", FULL_IMAGE)
    assert Success("second", "id-second", 1, 3.5) == outcome


@in_virtual_time
async def test_closing_the_client_gives_each_plain_create_an_outcome() -> None:
    outcomes: list[Outcome[str]] = []

    async def respond(request: Request) -> Response:
        return data([]) if request.method == "GET" else await stalled(request)

    async def launch() -> None:
        outcomes.extend(await session.create("fits", FULL_IMAGE, replicas=3))

    session, _ = session_on(respond, create_concurrency=2)
    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(launch)
            await anyio.sleep(1)
    assert [
        ("fits-1", FailureKind.UNKNOWN_EFFECT, True),
        ("fits-2", FailureKind.UNKNOWN_EFFECT, True),
        ("fits-3", FailureKind.CONNECT_FAILED, False),
    ] == [(o.key, o.kind, o.sent) for o in outcomes if isinstance(o, Failure)]


# --- records before the request ------------------------------------------------------------------


class RecordingObserver:
    """An observer that takes five seconds to record a create, and may then fail.

    Attributes:
        calls: its other calls, with their times.
    """

    is_open = True

    def __init__(self, group: TaskGroup, error: Exception | None = None) -> None:
        self.group = group
        self.in_flight: set[InFlightCreate] = set()
        self.calls: list[tuple[str, float]] = []
        self._error = error

    async def before_send(self, _: LaunchRequest) -> None:
        await anyio.sleep(5)
        if self._error is not None:
            raise self._error

    async def on_created(self, _: LaunchRequest, session: str) -> None:
        self.calls.append((session, anyio.current_time()))

    async def on_unknown(self, _: LaunchRequest) -> None:
        self.calls.append(("unknown", anyio.current_time()))

    async def on_not_created(self, _: LaunchRequest) -> None:
        self.calls.append(("not created", anyio.current_time()))


@asynccontextmanager
async def open_launcher(limits: Limits) -> AsyncIterator[tuple[Launcher, FakeTransport]]:
    """Open a launcher on a server that takes a second to make a session."""

    async def respond(request: Request) -> Response:
        await anyio.sleep(1)
        return text("new") if request.method == "POST" else data([])

    engine = Engine(Limiter(1), transport := FakeTransport(respond))
    yield Launcher(engine, SharedList(engine, limits), limits), transport
    await engine.aclose()


@in_virtual_time
async def test_create_cancelled_while_it_is_recorded_is_not_sent() -> None:
    [request] = build_requests_with_tokens(SessionSpec("fits", FULL_IMAGE))
    async with (
        open_launcher(Limits()) as (launcher, transport),
        anyio.create_task_group() as group,
    ):
        observer = RecordingObserver(group)
        create = InFlightCreate(launcher, request, observer)
        group.start_soon(create.run)
        await anyio.sleep(1)
        create.cancel_after(10)
        await create.done.wait()
    assert ([("not created", 5)], []) == (observer.calls, transport.requests)
    assert isinstance(create.outcome, Failure)
    assert (0, False) == (create.outcome.attempts, create.outcome.sent)


@in_virtual_time
async def test_create_timeout_begins_after_the_create_is_recorded() -> None:
    requests = build_requests_with_tokens(SessionSpec("fits", FULL_IMAGE))
    async with (
        open_launcher(Limits(create_timeout=3)) as (launcher, _),
        anyio.create_task_group() as group,
    ):
        observer = RecordingObserver(group)
        [outcome] = await launcher.launch(requests, observer)
    assert Success("fits", "new", 1, 6) == outcome
    assert [("new", 6)] == observer.calls


@in_virtual_time
async def test_create_is_neither_sent_nor_searched_for_after_any_error_of_the_record() -> None:
    requests = build_requests_with_tokens(SessionSpec("fits", FULL_IMAGE))
    async with (
        open_launcher(Limits()) as (launcher, transport),
        anyio.create_task_group() as group,
    ):
        observer = RecordingObserver(group, RuntimeError("can't start new thread"))
        [outcome] = await launcher.launch(requests, observer)
    assert isinstance(outcome, Failure)
    assert (FailureKind.INTERNAL, False, 0) == (outcome.kind, outcome.sent, outcome.attempts)
    assert "can't start new thread" in outcome.message
    assert ([("not created", 5)], []) == (observer.calls, transport.requests)
