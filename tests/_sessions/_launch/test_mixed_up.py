"""Responses that belong to other creates: no session is lost or counted twice."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

import kaleden
from _http.servers import LANES, reply
from kaleden import Failure, FailureKind, Outcomes, Success
from kaleden._sessions._launch._launcher import SeenSessionIds
from kaleden._sessions._ledger._file import read_ledger
from kaleden._wire import Request, Response
from support import (
    FULL_IMAGE,
    FakeTransport,
    data,
    launch_name,
    raw_server,
    read_request,
    session_id,
    session_object,
    session_on,
    text,
)
from virtual_time import in_virtual_time


class MixedUpServer:
    """A server that responds to a create with the id of another session.

    Args:
        given: for each name without a token, the name of the session to respond with.

    Attributes:
        names: the names of the existing sessions, by id.
        failing: the number of lists that will fail.
        empty: the number of lists after them that will be empty.
        delay: seconds that a list takes.
    """

    def __init__(self, **given: str) -> None:
        self.given = given
        self.failing = self.empty = 0
        self.delay = 0.0
        self.names: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.lists = anyio.Event()
        self.lists.set()
        self.listing = anyio.Event()

    async def __call__(self, request: Request) -> Response:
        # In virtual time, an event that takes no time has the same time as the one before it.
        await anyio.sleep(0.001)
        if request.method == "POST":
            return text(self.create(launch_name(request)))
        if request.method == "DELETE":
            self.names.pop(session_id(request), None)
            return text("")
        self.listing.set()
        await self.lists.wait()
        await anyio.sleep(self.delay)
        if self.failing:
            self.failing -= 1
            return text("no list now", 500)
        if self.empty:
            self.empty -= 1
            return data([])
        return data([session_object(key, name=name) for key, name in self.names.items()])

    def create(self, name: str) -> str:
        """Make a session, and return an id, perhaps of another session."""
        short = name.partition("-")[0]
        self.ids[short] = f"id-{short}"
        self.names[self.ids[short]] = name
        return self.ids[self.given.get(short, short)]


@asynccontextmanager
async def open_scope(
    server: MixedUpServer, ledger: Path | None = None
) -> AsyncIterator[kaleden.Scope]:
    session, _ = session_on(server, settle=1.0, ledger=ledger)
    async with session, session.scope(grace=10) as scope:
        yield scope
    assert {} == server.names
    assert scope.error is None


@in_virtual_time
async def test_repeated_id_belongs_to_the_first_create() -> None:
    server = MixedUpServer(b="a")
    async with open_scope(server) as scope:
        first = await scope.create("a", FULL_IMAGE)
        second = await scope.create("b", FULL_IMAGE)
        assert (["id-a"], ["id-b"]) == (first.ids, second.ids)
        assert ["id-a", "id-b"] == scope.ids


@in_virtual_time
async def test_repeated_id_without_a_scope_belongs_to_the_first_create() -> None:
    server = MixedUpServer(b="a")
    session, _ = session_on(server, settle=1.0)
    async with session:
        assert ["id-a"] == (await session.create("a", FULL_IMAGE)).ids
        assert ["id-b"] == (await session.create("b", FULL_IMAGE)).ids


@in_virtual_time
async def test_repeated_id_without_a_listed_session_is_unknown() -> None:
    async def respond(request: Request) -> Response:
        return text("same") if request.method == "POST" else data([])

    session, transport = session_on(respond, settle=0.01)
    async with session:
        await session.create("a", FULL_IMAGE)
        [outcome] = await session.create("b", FULL_IMAGE)
    assert isinstance(outcome, Failure)
    assert FailureKind.UNKNOWN_EFFECT is outcome.kind
    assert "same" in outcome.message
    assert 2 == sum(request.method == "POST" for request in transport.requests)


@in_virtual_time
async def test_responses_shifted_by_one_are_all_corrected() -> None:
    server = MixedUpServer(b="a", c="b", d="c")
    found: list[Outcomes[str]] = []
    async with open_scope(server) as scope, anyio.create_task_group() as group:
        await scope.create("a", FULL_IMAGE)

        async def second() -> None:
            found.append(await scope.create("b", FULL_IMAGE))

        # While the second create looks for its session, the others receive new ids.
        server.lists, server.listing = anyio.Event(), anyio.Event()
        group.start_soon(second)
        with anyio.fail_after(30):
            await server.listing.wait()
        assert ["id-b"] == (await scope.create("c", FULL_IMAGE)).ids
        assert ["id-c"] == (await scope.create("d", FULL_IMAGE)).ids
        server.lists.set()
    assert ["id-b"] == found[0].ids


@asynccontextmanager
async def launch_with_wrong_id(
    server: MixedUpServer, scope: kaleden.Scope
) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Launch "a"; then, while the block runs, "b", which receives the id of "a"."""
    await scope.create("a", FULL_IMAGE)
    server.lists, server.listing = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(scope.create, "b", FULL_IMAGE)
        with anyio.fail_after(30):
            await server.listing.wait()
        yield group
        server.lists.set()


@in_virtual_time
async def test_nested_scope_destroys_its_own_session() -> None:
    server = MixedUpServer(b="a", c="b")
    session, _ = session_on(server, settle=1.0)
    async with session, session.scope(grace=5) as outer:
        async with launch_with_wrong_id(server, outer), session.scope(grace=5) as inner:
            assert ["id-b"] == (await inner.create("c", FULL_IMAGE)).ids
            server.lists.set()
        assert "id-c" not in server.names
    assert {} == server.names


@in_virtual_time
async def test_failed_list_hides_no_session() -> None:
    server = MixedUpServer(b="a", c="b")
    async with open_scope(server) as scope:
        async with launch_with_wrong_id(server, scope):
            await scope.create("c", FULL_IMAGE)
            # The search for "b", and the first list of the clean-up.
            server.failing = 2


@in_virtual_time
async def test_unknown_id_in_a_response_hides_no_session() -> None:
    server = MixedUpServer(a="elsewhere")
    server.ids["elsewhere"] = "id-elsewhere"
    async with open_scope(server) as scope:
        assert ["id-elsewhere"] == (await scope.create("a", FULL_IMAGE)).ids


@pytest.mark.parametrize("first", "bc")
@in_virtual_time
async def test_any_list_order_confirms_all_launches(first: str) -> None:
    server = MixedUpServer(b="a", c="b")
    async with open_scope(server) as scope:
        async with launch_with_wrong_id(server, scope) as group:
            await scope.create("c", FULL_IMAGE)
            # Cancel the wait for "b", so that the clean-up has to find it.
            group.cancel_scope.cancel()
        server.lists.set()
        assert 1 == scope.statistics().unconfirmed
        server.names = dict(sorted(server.names.items(), key=lambda item: item[0][-1] != first))
        left_at = anyio.current_time()
    assert anyio.current_time() - left_at < 2


@in_virtual_time
async def test_launch_with_a_wrong_id_stays_unconfirmed_until_it_is_listed(tmp_path: Path) -> None:
    server, ledger = MixedUpServer(b="a", c="b"), tmp_path / "ledger"
    async with anyio.create_task_group() as group, open_scope(server, ledger) as scope:
        async with launch_with_wrong_id(server, scope):
            await scope.create("c", FULL_IMAGE)
            # The server still processes this create, for longer than the settle time.
            name = server.names.pop("id-c")

        async def list_session_later() -> None:
            await anyio.sleep(3)
            server.names["id-c"] = name

        group.start_soon(list_session_later)
        assert (2, 1) == (scope.statistics().owned, scope.statistics().unconfirmed)
        # If this process were killed now, `reap` would look for the name.
        known = {launch.name: launch.session_id for launch in read_ledger(ledger)}
        assert known[name] is None
    assert [] == list(read_ledger(ledger))
    assert {} == server.names


@in_virtual_time
async def test_concurrent_creates_of_one_name_have_their_own_sessions() -> None:
    both, numbers = anyio.Event(), itertools.count()

    async def respond(request: Request) -> Response:
        if request.method == "POST":
            number = next(numbers)
            if number == 1:
                both.set()
            # Neither create lists the session of the other before it is sent.
            await both.wait()
            server.names[f"id{number}"] = "a"
            return text("id0")
        return await server(request)

    server = MixedUpServer()
    session, _ = session_on(respond, settle=1.0)
    made: list[str] = []

    async def launch() -> None:
        made.extend((await session.create("a", FULL_IMAGE)).ids)

    async with session, anyio.create_task_group() as group:
        group.start_soon(launch)
        group.start_soon(launch)
    assert ["id0", "id1"] == sorted(made)


@in_virtual_time
async def test_launch_with_two_sessions_stays_in_the_ledger_until_both_are_gone(
    tmp_path: Path,
) -> None:
    server, ledger = MixedUpServer(), tmp_path / "ledger"
    open_counts: list[int] = []

    async def respond(request: Request) -> Response:
        if request.method == "POST":
            await server(request)
            server.names["id-a2"] = server.names["id-a"]
            return text("no answer from there", 502)
        if request.target.endswith("id-a2"):
            open_counts.append(len(list(read_ledger(ledger))))
            if len(open_counts) == 1:
                return text("")
        return await server(request)

    session, _ = session_on(respond, settle=0.01, ledger=ledger)
    async with session, session.scope(grace=5) as scope:
        await scope.create("a", FULL_IMAGE)
    assert [1, 1] == open_counts
    assert {} == server.names
    assert [] == list(read_ledger(ledger))


@in_virtual_time
async def test_ledger_is_empty_after_a_repeated_id(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with open_scope(MixedUpServer(b="a"), ledger) as scope:
        await scope.create("a", FULL_IMAGE)
        await scope.create("b", FULL_IMAGE)
        assert {"id-a", "id-b"} == {launch.session_id for launch in read_ledger(ledger)}
    assert [] == list(read_ledger(ledger))


def test_oldest_ids_are_forgotten() -> None:
    seen = SeenSessionIds(most=2)
    for name in "abca":
        assert isinstance(seen.check(Success(name, name), "fits", {}), Success)
    assert isinstance(seen.check(Success("a", "c"), "fits", {}), Failure)


@in_virtual_time
async def test_adopted_session_can_also_be_launched_by_the_scope() -> None:
    server = MixedUpServer()
    async with open_scope(server) as scope:
        await scope.adopt("id-a")
        await scope.create("a", FULL_IMAGE)
        assert ["id-a"] == scope.ids
        assert 0 == scope.statistics().unconfirmed


@pytest.mark.parametrize("lane", LANES)
async def test_duplicated_late_response_is_corrected(lane: str) -> None:
    server = MixedUpServer()

    async def respond(stream: SocketStream) -> None:
        pending = b""
        while True:
            head, _, form = (await read_request(stream)).partition(b"\r\n\r\n")
            method, target, _ = head.decode().split(" ", 2)
            made = await server(Request(method, target.partition("/v1/")[2], form))
            content = reply(made.body, b"content-type: " + made.headers["content-type"].encode())
            await stream.send(pending + content)
            pending = content if method == "POST" else b""

    async with (
        raw_server(respond) as url,
        LANES[lane](url, settle=1.0) as session,
        session.scope(grace=60) as scope,
    ):
        for name in "abc":
            assert [f"id-{name}"] == (await scope.create(name, FULL_IMAGE)).ids
    assert {} == server.names


# --- the id of a session that was launched elsewhere ----------------------------------------------


def make_server_with_another() -> MixedUpServer:
    """Return a server that responds to the create of "a" with the id of an older session."""
    server = MixedUpServer(a="elsewhere")
    server.ids["elsewhere"] = "id-elsewhere"
    server.names["id-elsewhere"] = "elsewhere"
    return server


def check_only_own_was_deleted(server: MixedUpServer, transport: FakeTransport) -> None:
    assert {"id-elsewhere": "elsewhere"} == server.names
    deleted = {session_id(each) for each in transport.requests if each.method == "DELETE"}
    assert {"id-a"} == deleted


@pytest.mark.parametrize(
    ("failing", "empty", "delay"), [(0, 0, 0.0), (3, 0, 0.0), (0, 3, 0.0), (2, 2, 1.0), (0, 0, 9.0)]
)
@in_virtual_time
async def test_session_with_a_foreign_name_is_not_destroyed(
    failing: int, empty: int, delay: float
) -> None:
    server = make_server_with_another()
    session, transport = session_on(server)
    async with session:
        async with session.scope() as scope:
            assert ["id-elsewhere"] == (await scope.create("a", FULL_IMAGE)).ids
            server.failing, server.empty, server.delay = failing, empty, delay
        assert scope.error is None
    check_only_own_was_deleted(server, transport)


@in_virtual_time
async def test_session_with_a_foreign_name_in_a_list_of_a_wait_is_not_destroyed() -> None:
    server = make_server_with_another()
    session, transport = session_on(server)
    async with session, session.scope() as scope:
        await scope.create("a", FULL_IMAGE)
        [failure] = await scope.wait(until="Running")
        assert isinstance(failure, Failure)
        assert FailureKind.PROTOCOL is failure.kind
        assert "had the id id-elsewhere of session elsewhere" in failure.message
    check_only_own_was_deleted(server, transport)


@in_virtual_time
async def test_session_that_was_listed_before_the_create_is_not_its_session() -> None:
    server = make_server_with_another()
    session, transport = session_on(server)
    async with session:
        await session.wait("id-elsewhere", until="Running")
        async with session.scope() as scope:
            assert ["id-a"] == (await scope.create("a", FULL_IMAGE)).ids
    check_only_own_was_deleted(server, transport)


@in_virtual_time
async def test_session_that_was_listed_before_the_create_is_named_in_its_failure() -> None:
    server = make_server_with_another()
    session, _ = session_on(server, settle=1.0)
    async with session:
        await session.wait("id-elsewhere", until="Running")
        async with session.scope(grace=5) as scope:
            # The lists fail while the session is looked for.
            server.failing = 10
            [failure] = await scope.create("a", FULL_IMAGE)
            server.failing = 0
    assert isinstance(failure, Failure)
    assert FailureKind.UNKNOWN_EFFECT is failure.kind
    assert "a session named a-" in failure.message
    assert "session id-elsewhere, called elsewhere, which existed before" in failure.message


@in_virtual_time
async def test_run_does_not_return_the_result_of_another_session() -> None:
    server = make_server_with_another()
    session, transport = session_on(server)
    async with session:
        [failure] = await session.run("a", FULL_IMAGE)
    assert isinstance(failure, Failure)
    assert FailureKind.PROTOCOL is failure.kind
    check_only_own_was_deleted(server, transport)
