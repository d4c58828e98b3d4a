"""The launch protocol, step by step, in virtual time: searches, their intervals and their ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from kaleden import Failure, FailureKind, RetryPolicy, SessionNotOpen, Success
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._limiter import Limiter
from kaleden._http import TransportError
from kaleden._sessions._launch._launch_request import LaunchRequest
from kaleden._sessions._launch._launcher import InFlightCreate, Launcher
from kaleden._sessions._monitor._lister import SharedList
from kaleden._wire import Request, Response, SessionSpec
from support import FULL_IMAGE, FakeTransport, data, launch_name, session_object, session_on, text
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
    assert (FailureKind.SERVER_ERROR, 500, 31) == (outcome.kind, outcome.status, outcome.elapsed)
    assert outcome.message.endswith("something broke (and no session was created)")


@pytest.mark.parametrize(
    "last",
    [BROKEN, data([{"type": "headless"}]), data([session_object(k, name="fits") for k in "ab"])],
    ids=["none", "unreadable", "two"],
)
@in_virtual_time
async def test_only_a_complete_list_proves_that_no_session_exists(last: Response) -> None:
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
    assert FailureKind.SERVER_ERROR is outcome.kind


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
async def test_create_cancelled_while_it_is_recorded_is_not_sent() -> None:
    class SlowObserver:
        is_open = True
        not_created_at = 0.0

        def __init__(self, group: anyio.abc.TaskGroup) -> None:
            self.group = group
            self.in_flight: set[InFlightCreate] = set()

        async def before_send(self, _: LaunchRequest) -> None:
            await anyio.sleep(5)

        async def on_not_created(self, _: LaunchRequest) -> None:
            self.not_created_at = anyio.current_time()

        async def on_created(self, _request: LaunchRequest, _session: str) -> None:
            raise AssertionError

        async def on_unknown(self, _: LaunchRequest) -> None:
            raise AssertionError

    async def respond(_: Request) -> Response:
        raise AssertionError

    engine, limits = Engine(Limiter(1), transport := FakeTransport(respond)), Limits()
    launcher = Launcher(engine, SharedList(engine, limits), limits)
    [launch] = SessionSpec("fits", FULL_IMAGE).launches()
    request = LaunchRequest(launch.name, launch)
    async with anyio.create_task_group() as group:
        observer = SlowObserver(group)
        create = InFlightCreate(launcher, request, observer)
        group.start_soon(create.run)
        await anyio.sleep(1)
        create.cancel_after(10)
        await create.done.wait()
    assert (5, []) == (observer.not_created_at, transport.requests)
    assert isinstance(create.outcome, Failure)
    assert (0, False) == (create.outcome.attempts, create.outcome.sent)
    await engine.aclose()
